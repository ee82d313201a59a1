"""A worker per card of one kind: what each sees, which cards are left out, and a sweep over two of them."""

import json
from dataclasses import replace

import pytest
from helpers import killed
from helpers.sweep import CARD, WORLD, Bench, Watch

from harness import pipeline
from harness.hardware import device_lock
from harness.hardware.info import Device
from harness.records.store import MEASUREMENTS
from harness.workers.cards import one_each
from harness.workers.local import LocalExecutor

OTHERS = {"cuda:1": ("Tesla T4", "T4-1"), "cuda:2": ("NVIDIA L4", "L4"), "cuda:3": ("Tesla T4", "T4-3")}
FOUR = Device(
    "cuda:0",
    "Tesla T4",
    15 << 30,
    uuid="T4",
    others=tuple(f"{number} {name}" for number, (name, _) in OTHERS.items()),
    other_uuids=tuple(uuid for _, uuid in OTHERS.values()),
)


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def visible(executors):
    return [executor.environment["CUDA_VISIBLE_DEVICES"] for executor in executors]


def is_held(uuid):
    try:
        with device_lock.hold(replace(FOUR, uuid=uuid)):
            return False
    except device_lock.Busy:
        return True


def test_each_sees_one_card_of_the_same_name_and_holds_it():
    notes, executor = [], LocalExecutor(("serve",), {"A": "1"}, lambda: 7)
    with one_each(executor, FOUR, notes.append, 4) as executors:
        assert visible(executors) == ["0", "1", "3"]  # another kind of card is another device
        assert all(each.command == ("serve",) and each.environment["A"] == "1" for each in executors)
        assert all(each.free_bytes() == 7 for each in executors)
        assert [is_held(uuid) for uuid in ("T4-1", "L4", "T4-3")] == [True, False, True]
    assert notes == ["3 cards, a cell on each at a time"]
    assert not is_held("T4-1")


@pytest.mark.parametrize("by_user", [True, False])
def test_numbers_are_those_of_the_cards_that_the_user_shows(monkeypatch, by_user):
    shown = {"CUDA_VISIBLE_DEVICES": "2, GPU-8932f937,5,7"}
    if by_user:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown["CUDA_VISIBLE_DEVICES"])
    with one_each(LocalExecutor(("serve",), {} if by_user else shown), FOUR, lambda text: None, 4) as executors:
        assert visible(executors) == ["2", "GPU-8932f937", "7"]


def test_a_card_that_another_process_has_is_left_to_it_and_said():
    notes = []
    with device_lock.hold(replace(FOUR, uuid="T4-1")):
        with one_each(LocalExecutor(), FOUR, notes.append, 4) as executors:
            assert visible(executors) == ["0", "3"]
        assert notes == [
            "cuda:1 Tesla T4 is left to the bench or ttft that uses it",
            "2 cards, a cell on each at a time",
        ]
        with device_lock.hold(replace(FOUR, uuid="T4-3")):
            only = LocalExecutor()
            with one_each(only, FOUR, notes.append, 4) as executors:
                assert executors == [only]


@pytest.mark.parametrize(("most", "cards", "spare"), [(2, ["0", "1"], "cuda:3"), (1, None, "cuda:1, cuda:3")])
def test_no_more_cards_are_held_than_there_is_work_for(most, cards, spare):
    notes, executor = [], LocalExecutor()
    with one_each(executor, FOUR, notes.append, most) as executors:
        assert (visible(executors) if cards else executors) == (cards or [executor])
        assert [is_held(uuid) for uuid in ("T4-1", "T4-3")] == [most > 1, False]
    assert f"{spare} not needed: a model in one precision keeps to one card" in notes


def test_a_machines_only_card_and_a_cpu_have_the_executor_that_there_is():
    executor = LocalExecutor()
    for device in (replace(FOUR, others=(), other_uuids=()), Device("cpu", "a CPU", 8 << 30)):
        with one_each(executor, device, pytest.fail, 4) as executors:
            assert executors == [executor]


def test_a_sweep_over_two_cards_has_the_rows_of_a_sweep_on_one(tmp_path, shipped):
    """Two models in two precisions are four groups, of which two are at work at a time."""
    cells = {"names": ("fp16", "fp32"), "contexts": (256, 512), "windows": (4096, 8192)}
    rates = {"fp16": WORLD["rates"]["bf16"], "fp32": WORLD["rates"]["fp32"]}
    rows = {}
    for name, device in (("one", "cuda:0"), ("two", "auto")):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name)
        card = {**CARD, "others": ["cuda:1 Tesla T4"], "other_uuids": ["T4-1"]}
        bench.world({"device": card, "rates": rates}, seconds=0.2)
        done = pipeline.bench(
            bench.config(**cells, device=device),
            shipped,
            Watch(),
            executor=LocalExecutor(bench.command),
            accuracy=False,
        )
        assert len(bench.jobs()) == len(set(bench.jobs())) == 8
        assert len((bench.results / MEASUREMENTS.name).read_text().splitlines()) == 8
        rows[name] = [
            killed.same_measurement(json.loads(json.dumps(MEASUREMENTS.to_json(row)))) for row in done.swept.rows
        ]
        seen = (tmp_path / name / "world.visible").read_text().splitlines()
        assert set(seen) == ({"0", "1"} if name == "two" else {""})
    assert rows["two"] == rows["one"]
