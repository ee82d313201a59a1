# make bench [MODEL="a b"] [CONTEXTS="1024 4096"] [PRECISIONS="fp16 int4"] [BUDGET_HOURS=12] [DEVICE=cuda:1] [ARGS=...]
PYTHON ?= python3
PY := .venv/bin/python
RUN := $(PY) -m harness

# Variables of several verbs; each target passes on those that its verb takes.
option = $(if $($(1)),--$(2) "$($(1))")
FILE = $(call option,MODELS_FILE,models-file)
CELLS = $(call option,CONTEXTS,contexts) $(call option,PRECISIONS,precisions) $(FILE)
WHERE = $(call option,DEVICE,device) $(call option,RESULTS,results)
GOAL = $(call option,BUDGET_HOURS,budget-hours) $(call option,STEPS,steps)

.DEFAULT_GOAL := help
.PHONY: wheels help bench ttft report pick plan models doctor setup test lint format benchmarks backtest-projection \
  backtest-accuracy backtest predict calibrate tiny zoo fuzz kill first-contact real compat clean

help:
	@echo 'make bench [MODEL="qwen-0.5b phi-3-mini"] [CONTEXTS="1024 4096"] [PRECISIONS="fp16 int4"] [BUDGET_HOURS=12]'
	@echo 'make ttft MODEL=./my-model   make plan|report|pick|models|doctor   make test|lint|fuzz|kill   make benchmarks|tiny'
	@echo 'make predict MODEL=phi-3-mini PRECISIONS=int4 CONTEXTS=4096 GPU=t4   make calibrate   make backtest'
	@echo 'make first-contact [DEVICE=cuda:0]   what holds on this device   make wheels   make real   SmolLM2 through all arms, hours on a CPU'

bench: .venv/.ready
	@$(RUN) bench $(MODEL) $(CELLS) $(WHERE) $(GOAL) $(call option,WEIGHTS,weights) $(ARGS)

ttft: .venv/.ready
	@$(RUN) ttft $(MODEL) $(CELLS) $(WHERE) $(call option,STEPS,steps) $(call option,WEIGHTS,weights) $(ARGS)

plan: .venv/.ready
	@$(RUN) plan $(MODEL) $(CELLS) $(WHERE) $(GOAL) $(call option,WEIGHTS,weights) $(call option,GPU,gpu) $(ARGS)

report pick: .venv/.ready
	@$(RUN) $@ $(FILE) $(GOAL) $(call option,RESULTS,results) $(ARGS)

models: .venv/.ready
	@$(RUN) models $(FILE) $(ARGS)

doctor: .venv/.ready
	@$(RUN) doctor $(call option,DEVICE,device) $(ARGS)

# A process per core and one more, for many wait for others; each of one thread. Long files first (tests/conftest.py).
PROCESSES = $(shell expr $$(nproc 2>/dev/null || echo 1) + 1)
test: .venv/.ready-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.ready-dev
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

format: .venv/.ready-dev
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

benchmarks: .venv/.ready-dev
	$(PY) -m pytest bench $(ARGS)

zoo: .venv/.ready-dev
	$(PY) -m bench.zoo --write docs/models.md $(ARGS)

# Bad input for every verb; and runs that are killed. Some 30 minutes each; CI has a few of both.
fuzz kill: .venv/.ready-dev
	$(PY) -m bench.$@ $(ARGS)

# The lowest and the newest versions that pyproject.toml allows, each in a venv of its own: 6 GB and minutes each.
compat: .venv/.ready
	$(PY) -m bench.compat $(ARGS)

# What holds on a device that is new: ten minutes on a card, five on a CPU. The report is in results/first-contact.
first-contact: .venv/.ready
	@$(PY) -m bench.first_contact $(call option,DEVICE,device) $(ARGS)

# SmolLM2-135M from a package through bench, all arms of ttft, and pick: hours on a CPU; started again it goes on.
real: .venv/.ready-dev
	@$(PY) -m bench.real $(call option,RESULTS,results) $(ARGS)

# What a notebook without internet needs, everything but torch: dist/wheels.
wheels: .venv/.ready
	@$(PY) -m notebooks.wheels $(ARGS)

backtest-projection: .venv/.ready-dev
	$(PY) -m bench.backtest_projection $(ARGS)

backtest-accuracy: .venv/.ready-dev
	$(PY) -m bench.backtest_accuracy $(ARGS)

backtest: .venv/.ready
	$(PY) -m bench.backtest --write $(ARGS)

predict: .venv/.ready
	@$(RUN) predict $(MODEL) $(CELLS) $(GOAL) $(call option,GPU,gpu) $(ARGS)

calibrate: .venv/.ready
	@$(RUN) calibrate $(call option,RESULTS,results) $(ARGS)

# One process a core learns faster than one on all. Stopped and started again it goes on from its checkpoint. glibc
# keeps what is freed, for giving it back and faulting it in again would cost a tenth of the time.
CORES ?= $(shell nproc 2>/dev/null || echo 1)
tiny: .venv/.ready
	OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 \
	  $(PY) -m torch.distributed.run --nproc-per-node $(CORES) -m harness.tiny.pretrain $(ARGS)

# pip says in many lines what went wrong; started again it goes on.
SETUP_FAILED = echo 'error: .venv could not be set up, see above: it needs an index of packages, and room for 6.5 GB (2 GB with a torch without CUDA)' >&2; exit 2

setup: .venv/.ready

# Made anew when the pins or the project's own file are newer; pip then changes only what differs.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed; name it: make PYTHON=python3.12' >&2; exit 2; }
	@echo 'setting up .venv (once; a few minutes) ...'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e . || { $(SETUP_FAILED); }
	@touch $@

.venv/.ready-dev: .venv/.ready
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' || { $(SETUP_FAILED); }
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
