"""Two processes over gloo against one: the same losses and adapters, the same record."""

import ipaddress
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import torch
from helpers.records import TINY

from harness.catalog import precisions
from harness.catalog.recipes import RecipeOptions, resolve
from harness.errors import Unsupported, UserError
from harness.hardware.device import choose_device
from harness.measure import worker
from harness.measure.sweep import CELL
from harness.records.arm import ROWS
from harness.records.cell import Cell, ModelSpec, Recipe
from harness.records.store import read
from harness.records.stored import to_stored
from harness.train import distributed
from harness.train import model as models
from harness.train.step import TrainingStep
from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.process import rank_environments

FRESH_PROCESSES = True

CPU = torch.device("cpu")
# Kernels are not chosen, which would compile in every process; the verb on two processes chooses them.
RECIPE = Recipe(lora_r=4, sequences_per_step=5, learning_rate=1e-3, kernels="plain")
LENGTHS = ((30, 7), (12, 1), (22, 11), (9, 4), (41, 2))


def train(recipe: Recipe, steps: int = 4):
    """Losses of each step, and the adapter after them."""
    spec = ModelSpec("tiny", dict(TINY), 256)
    loaded = models.load(spec, precisions.find("fp32"), "fp32", recipe, "random", CPU, seed=1)
    step, generator = TrainingStep(loaded.model, recipe, "fp32", CPU), torch.Generator().manual_seed(3)
    losses = []
    for _ in range(steps):
        drawn = [(torch.randint(320, (n,), generator=generator).tolist(), answer) for n, answer in LENGTHS]
        losses.append(step.run(drawn, 50).item())
    return losses, [p.detach() for p in loaded.model.parameters() if p.requires_grad]


def _member(path):
    distributed.init(CPU)
    number = distributed.rank()
    # The first one's choice, and its refusal, are everybody's.
    assert distributed.from_first(lambda: ["flash", "efficient"][number]) == "flash"
    with pytest.raises(Unsupported, match="no kernel on card 0"):
        distributed.from_first(lambda: _refuse(number))
    assert distributed.any_of(number == 1) and not distributed.any_of(False)
    distributed.must_agree("dtype", "bf16")
    with pytest.raises(Unsupported, match=r"card 0: bf16; card 1: fp16.*--gpus 1"):
        distributed.must_agree("dtype", ["bf16", "fp16"][number])
    trained = train(RECIPE)
    torch.save(trained, f"{path}.{distributed.rank()}")
    torch.distributed.destroy_process_group()


def _refuse(number):
    raise Unsupported(f"no kernel on card {number}")


def _together(folder, *words) -> None:
    """This file, or another command, as two processes that know of each other."""
    running = [
        subprocess.Popen(words, env=os.environ | rank | {"OMP_NUM_THREADS": "1"})
        for rank in rank_environments(2, str(folder))
    ]
    assert [process.wait(120) for process in running] == [0, 0]


def test_two_processes_train_as_one(tmp_path):
    """Five sequences on two processes, three and two: loss and adapter of every step as in one process."""
    _together(tmp_path, sys.executable, __file__, str(tmp_path / "found"))
    losses, adapter = train(RECIPE)
    for number in range(2):
        found_losses, found_adapter = torch.load(tmp_path / f"found.{number}")
        assert found_losses == pytest.approx(losses, rel=1e-5)
        for ours, alone in zip(found_adapter, adapter, strict=True):
            torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-6)
    assert losses[-1] != losses[0]


def test_nobody_else_can_connect(tmp_path):
    """While two processes train, whatever they listen on has an address of the loopback interface."""
    heard = []

    def look(event):
        if event.get("phase") in ("warm-up", "sampling"):
            for process in psutil.Process().children():
                heard.extend(c.laddr.ip for c in process.net_connections("all") if c.status == psutil.CONN_LISTEN)

    recipe = Recipe(sequences_per_step=2, data_parallel=2)
    cell = Cell(ModelSpec("tiny", TINY, 256), "fp32", "fp32", 24, recipe, "random", "cpu", "2 x CPU")
    payload, limits = {"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0}, RunLimits(log=tmp_path / "log")
    outcome = LocalExecutor(environment={"OMP_NUM_THREADS": "1"}).run(CELL, payload, limits, look, processes=2)
    assert outcome.status == "ok", (tmp_path / "log").read_text()
    assert heard and all(ipaddress.ip_address(address).is_loopback for address in heard)


def test_dealing_by_hand(monkeypatch):
    """Lengths 50, 40, 30, 20, 10 to two: there and back gives the first 50, 20 and 10, the second 40 and 30."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    dealt = []
    for number in range(2):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        dealt.append(distributed.shard([10, 50, 30, 20, 40]))
    assert dealt == [[1, 3, 0], [4, 2]]


def test_a_worker_measures_the_whole_machine(tiny_spec, tmp_path):
    """Two processes, 4 sequences a step: each does two of them, so an update comes after every second micro-step; and
    whole steps over ARC's lengths, of which each does its share."""
    recipe = Recipe(sequences_per_step=4, data_parallel=2)
    cell = Cell(replace(tiny_spec, max_context=512), "fp32", "fp32", 400, recipe, "random", "cpu", "2 x CPU")
    assert recipe.micro_steps_per_step == 2
    payload = {"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0, "arc_seconds": 1.0}
    limits = RunLimits(log=tmp_path / "log")
    with LocalExecutor(environment={"OMP_NUM_THREADS": "1"}) as executor:
        outcome = executor.run(CELL, payload, limits, processes=2)
    seen = outcome.result
    assert outcome.status == "ok" and seen["status"] == "ok", (tmp_path / "log").read_text()
    assert len(seen["micro_s"]) >= 3
    assert len(seen["optimizer_s"]) == max(1, len(seen["micro_s"]) // 2)
    assert len(seen["arc_step_s"]) == len(seen["arc_step_tokens"]) >= 2
    assert all(4 * 350 <= tokens <= 4 * 400 for tokens in seen["arc_step_tokens"])


def test_ttft_on_two_processes_gives_the_same_record(tmp_path):
    """The verb under torchrun and alone: the same answers and losses for every task, written once."""
    options = "--set generated --tasks 5 --steps 3 --views 1 --precision fp32 --device cpu --sequences-per-step 4"
    words = [sys.executable, "-m", "harness", "ttft", "--arms", "baseline, + color swap", *options.split()]
    rows = []
    for gpus in (1, 2):
        folder = tmp_path / str(gpus)
        ran = subprocess.run(
            [*words, "--gpus", str(gpus), "--results", str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert ran.stdout.count("looking at the device") == ran.stdout.count("Best arm") == 1
        assert ran.stdout.count("pointwise: ") == 1
        rows.append(read(folder / ROWS.name, ROWS)[0])
    for alone, shared in zip(*rows, strict=True):
        assert shared.spec.recipe == replace(alone.spec.recipe, data_parallel=2)
        assert shared.step_losses == pytest.approx(alone.step_losses, rel=1e-4)
        assert shared.attempts == alone.attempts
        ours, theirs = (sorted(row.answer_losses) for row in (shared, alone))
        assert [n for pair in ours for n in pair] == pytest.approx([n for pair in theirs for n in pair], rel=1e-3)


def test_the_fullest_process_decides_the_peak():
    memories = [{"steady": {"reserved": 5, "process": 7}, "imported": {"process": 1}}, {"steady": {"reserved": 9}}]
    largest = worker._largest(memories)
    assert largest == {"steady": {"reserved": 9, "process": 7}, "imported": {"process": 1}}


def test_every_process_uses_its_own_card_alone(monkeypatch):
    """`--device cuda:1` alone, and two processes from cuda:1 on; the current card is set before anything runs there."""
    used = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    assert distributed.init(torch.device("cuda:1")) == torch.device("cuda:1")
    monkeypatch.setattr(distributed, "is_launched", lambda: True)
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.own_device(torch.device("cuda:1")) == torch.device("cuda:2")
    assert used == [torch.device("cuda:1")]  # asking which is its own touches none
    assert distributed.init(torch.device("cuda:1")) == torch.device("cuda:2")
    assert used == [torch.device("cuda:1"), torch.device("cuda:2")]


def test_a_scheduler_that_sets_rank_does_not_make_a_group(monkeypatch):
    """AzureML, Vertex and some SLURM set-ups give every process RANK and WORLD_SIZE; this program launched none."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TTFT_BENCH_RENDEZVOUS", raising=False)
    assert not distributed.is_launched() and distributed.own_device(torch.device("cuda:0")) == torch.device("cuda:0")
    assert distributed.init(torch.device("cpu")) == torch.device("cpu")
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert not torch.distributed.is_initialized()


def test_messages_between_processes_wait_for_a_day_and_collectives_of_cards_do_not(monkeypatch, tmp_path):
    """One card may answer for hours longer than another; that a process died the parent sees."""
    waits = {}
    monkeypatch.setenv(distributed._RENDEZVOUS, str(tmp_path / "rendezvous"))
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed, "_messages", None)
    dist = distributed.dist
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **_: waits.update({backend: timeout}))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: waits.update({backend: timeout}))
    distributed.init(torch.device("cuda:0"))
    hours = {backend: wait.total_seconds() / 3600 for backend, wait in waits.items()}
    assert hours["gloo"] >= 24 and hours["cpu:gloo,cuda:nccl"] <= 0.5


def test_memory_is_read_before_the_card_is_touched(tiny_spec, monkeypatch):
    """What the card holds before this process has a context there is no memory of the model."""
    order = []

    class Memory:
        def __init__(self, device, is_slice):
            self.device = device
            order.append(f"memory of {device}")

        def read(self):
            return {}

    def init(device):
        order.append("context")
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(worker, "PeakMemory", Memory)
    monkeypatch.setattr(distributed, "init", init)
    cell = Cell(tiny_spec, "fp32", "fp32", 24, Recipe(), "random", "cuda:0", "a T4")
    row = worker.measure_cell({"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0}, lambda *_, **__: None)
    assert order == ["memory of cuda:0", "context"]
    assert row["status"] == "crashed" and "another process holds this card" in row["reason"]


def test_what_cannot_be_shared():
    with pytest.raises(UserError, match="cannot be shared equally by 3 cards"):
        resolve(Recipe(), RecipeOptions(gpus=3))
    with pytest.raises(UserError, match="from 1 to"):
        resolve(Recipe(), RecipeOptions(gpus=0))

    class OneCard:
        is_available = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 1)

    with pytest.raises(UserError, match="--gpus 2: from cuda:0 on there are 1 CUDA devices"):
        choose_device("cuda:0", OneCard, gpus=2)


if __name__ == "__main__":
    _member(sys.argv[1])
