"""What `harness doctor` finds on a machine that a fake executor reports."""

import io
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.sweep import WORKER, WORLD
from rich.console import Console

from harness.catalog import models
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.info import Device, DeviceReport
from harness.measure import doctor_checks, trial
from harness.measure.doctor import examine
from harness.records.measurement import CONTEXT_BYTES, CardState, MatmulSpeed
from harness.records.stored import to_stored
from harness.report.info import doctor_table
from harness.workers.local import LocalExecutor
from harness.workers.look import FIND, REPORT

CARD = Device("cuda:0", "Tesla T4", 15 << 30, uuid="t4", others=("cuda:1 Tesla T4",))
REPORTED = DeviceReport(CARD, {"fp32": MatmulSpeed(4e12, 4e12, native=True)})


class Machine:
    """An executor of one card; `jobs` are those that were asked for."""

    def __init__(self, report=REPORTED, refuses=""):
        self.jobs, self.report, self.refuses = [], report, refuses

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.jobs.append("closed")

    def ask(self, job, payload):
        self.jobs.append(job)
        if self.refuses:
            raise UserError(self.refuses)
        return to_stored({FIND: self.report.device, REPORT: self.report}[job])


def trained(report, executor, on_tried):
    """A step that runs, in two precisions."""
    executor.jobs.append("step")
    for tried in (1, 2):
        on_tried(tried)
    return {}


def test_every_check_is_told():
    told = []
    examine("auto", hub="none:", executor=Machine(), failures=trained, checked=lambda *parts: told.append(parts))
    assert told == [(done, 5) for done in range(6)]
    told.clear()
    with device_lock.hold(CARD):  # what cannot be checked is passed over
        examine("auto", hub="none:", executor=Machine(), failures=trained, checked=lambda *parts: told.append(parts))
    assert told == [(0, 5), (1, 5), (5, 5)]


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))


def test_a_second_card_is_named_and_the_card_is_let_go():
    machine = Machine()
    findings = examine("auto", hub="none:", executor=machine, failures=trained)
    (line,) = [line for line in findings.advice if "cuda:1 Tesla T4" in line]
    assert line == (
        "beside it: cuda:1 Tesla T4; bench uses all of one kind, --device cuda:N one; "
        "--gpus 2 shares each step among all"
    )
    assert findings.rates == REPORTED.rates and findings.tried
    assert machine.jobs[:4] == [FIND, REPORT, "closed", "step"]


def test_a_device_that_is_being_measured_on_is_named_and_not_timed():
    machine = Machine()
    with device_lock.hold(CARD):
        findings = examine("auto", hub="none:", executor=machine, failures=trained)
    assert findings.device == CARD and not findings.rates and not {REPORT, "step"} & {*machine.jobs}
    (line,) = [line for line in findings.advice if "not timed" in line]
    assert "another bench or ttft is measuring on cuda:0" in line
    assert not findings.problems


def test_no_folder_for_locks_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name in ("TTFT_BENCH_CACHE", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "below"))
    monkeypatch.setattr(device_lock, "gettempdir", lambda: str(tmp_path / "file"))
    findings = examine("auto", hub="none:", executor=Machine(), failures=trained)
    assert ["TTFT_BENCH_CACHE" in line for line in findings.problems] == [True]


def shown(findings):
    """What doctor prints, and whether it says Ready."""
    out = Console(width=200, record=True, file=io.StringIO())
    return doctor_table(findings, out), out.export_text()


REFUSED = "there is Tesla T4, driver 550.54.15, but torch cannot use it: torch 2.13.0 is built for CUDA 13.0; ..."


def test_a_card_that_torch_cannot_use_is_a_problem_beside_the_other_findings():
    findings = examine("auto", hub="none:", executor=Machine(refuses=REFUSED), failures=trained)
    assert findings.problems == [REFUSED] and any("hub" in line for line in findings.advice)
    ready, text = shown(findings)
    assert not ready and "PROBLEM: there is Tesla T4" in text
    with pytest.raises(UserError, match="there is Tesla T4"):
        examine("cuda:0", hub="none:", executor=Machine(refuses=REFUSED), failures=trained)


def test_a_step_that_does_not_run_is_never_called_ready(monkeypatch):
    """As with transformers 5.0.0 and peft 0.18.0: every cell would be unsupported."""
    reason = "unsupported: its FLOPs cannot be counted: unknown device type for autocast"
    monkeypatch.setattr("harness.measure.doctor.versions", lambda: {"torch": "2.13.0", **dict.fromkeys(
        ("transformers", "peft", "bitsandbytes", "accelerate"), "0.1")})  # fmt: skip
    findings = examine("auto", hub="none:", executor=Machine(), failures=lambda *_: {"fp32": reason, "int4": reason})
    ready, text = shown(findings)
    assert not ready and "Ready" not in text and reason in text
    (remedy,) = {line.partition("the tested versions are: ")[2] for line in findings.problems}
    assert remedy.startswith("pip install ") and "transformers==" in remedy and "torch==" not in remedy


def test_where_int4_alone_fails_the_rest_can_be_measured():
    findings = examine("auto", hub="none:", executor=Machine(), failures=lambda *_: {"int4": "crashed: no library"})
    assert shown(findings)[0] and not findings.tried
    assert any("in int4 does not run here: crashed: no library" in line for line in findings.advice)


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        ({}, None),
        ({"trace": {"unsupported": "its FLOPs cannot be counted: unknown device"}}, "unsupported: its FLOPs"),
        ({"ends": {"arc-tiny bf16 256": "raise"}}, "crashed: RuntimeError: the kernel is broken"),
        ({"ends": {"arc-tiny bf16 256": "oom"}}, "oom: it was oom"),
        ({"ends": {"arc-tiny bf16 256": "segfault"}}, "crashed: ended by SIGSEGV"),
    ],
)
def test_the_step_goes_the_way_of_every_cell(tmp_path, world, reason):
    file = tmp_path / "world.json"
    file.write_text(json.dumps(WORLD | world))
    device = Device("cpu", "A CPU", 8 << 30)
    rates = {name: MatmulSpeed(1e12, 1e12, name != "fp16") for name in ("fp32", "fp16", "bf16")}
    with LocalExecutor((sys.executable, WORKER, str(file))) as executor:
        reasons = trial.failures(DeviceReport(device, rates), executor)
    if reason is None:
        assert reasons == {}
        # The native precision and int4.
        assert file.with_suffix(".log").read_text().splitlines() == ["arc-tiny bf16 256", "arc-tiny int4 256"]
    else:
        assert reasons["bf16"].startswith(reason) and "see log" not in reasons["bf16"]


def test_a_catalogue_that_is_none_is_a_problem_and_the_step_needs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text("models: none\n")
    findings = examine("auto", hub="none:", executor=Machine(), failures=trained)
    assert findings.tried and ["models.yaml" in line for line in findings.problems] == [True]


def report(name="Tesla T4", free=None, throttle=()):
    device = replace(CARD, name=name, others=())
    state = CardState(sm_mhz=900, celsius=88, throttle=throttle)
    return DeviceReport(device, REPORTED.rates, free_bytes=free, state=state)


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (report(), None),
        (report(free=(15 << 30) - CONTEXT_BYTES - (1 << 29)), None),  # a desktop's half a GiB
        (report(free=(7 << 30) - CONTEXT_BYTES), "other processes hold 8.0 of this card's 15.0 GiB"),
        (report(throttle=("power cap",)), None),  # every card under a large product
        (report(throttle=("heat", "power cap")), "heat holds the clock down after seconds of work at 88 C"),
        (report("NVIDIA A100-SXM4-80GB MIG 1g.10gb"), "a MIG slice: memory and speed are a part of the card's"),
        (DeviceReport(Device("cpu", "A CPU", 8 << 30), REPORTED.rates), None),
    ],
)
def test_what_a_card_says_of_itself(seen, sentence):
    lines = doctor_checks.card(seen)
    assert [line[: len(sentence or "")] for line in lines] == ([sentence] if sentence else [])


@pytest.fixture
def disks(monkeypatch):
    """Free and total bytes by folder; other folders are not there."""
    sizes = {}

    def usage(folder):
        if str(folder) not in sizes:
            raise FileNotFoundError
        return SimpleNamespace(free=sizes[str(folder)], total=sizes[str(folder)])

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return sizes


def test_shared_memory_matters_with_several_cards_alone(tmp_path, disks):
    disks[str(tmp_path)] = 64 << 20
    assert "has 64 MiB" in doctor_checks.shared_memory(CARD, tmp_path)
    assert "--shm-size" in doctor_checks.shared_memory(CARD, tmp_path)
    assert doctor_checks.shared_memory(replace(CARD, others=()), tmp_path) is None
    assert doctor_checks.shared_memory(CARD, tmp_path / "none") is None
    disks[str(tmp_path)] = 8 << 30
    assert doctor_checks.shared_memory(CARD, tmp_path) is None


def test_disks_that_hold_no_weights(tmp_path, disks):
    """Folders that are not made yet lie on the disk of the nearest one that is."""
    catalog = models.load()
    disks[str(tmp_path)] = 400 << 30
    results, cache = tmp_path / "results" / "t4", tmp_path / "hub"
    assert doctor_checks.disk(catalog, results, cache) == []
    disks[str(tmp_path)] = 10**9  # bytes: half a billion parameters in 16 bits
    (line,) = doctor_checks.disk(catalog, results, cache)
    assert "0.9 GiB are free for weights" in line and "HF_HOME" in line and "more" in line
    disks[str(tmp_path)] = 1 << 20
    assert ["for records" in line for line in doctor_checks.disk(catalog, results, cache)] == [True, False]
    disks.clear()
    assert doctor_checks.disk(catalog, results, cache) == []  # a system that does not say


def test_where_the_hub_keeps_weights(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor_checks.hub_cache_folder() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert doctor_checks.hub_cache_folder() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "weights"))
    assert doctor_checks.hub_cache_folder() == tmp_path / "weights"


def test_what_a_card_depends_on_is_shown():
    there = {"cuda": "13.0", "cudnn": "9.20.0", "driver": "580.95.05", "power_limit_w": "70"}
    seen = replace(REPORTED, environment=there)
    findings = examine("auto", hub="none:", executor=Machine(seen), failures=trained)
    assert "CUDA 13.0, cuDNN 9.20.0, driver 580.95.05, power limit (W) 70" in shown(findings)[1]
