"""Before a cell: a busy machine is said and waited for, up to a bound; what was timed beside others is marked."""

import pytest
from helpers.busy import Machine
from helpers.records import row
from helpers.sweep import Bench, Watch

from harness.hardware import cpu_load
from harness.hardware.info import Device
from harness.measure import sweep
from harness.measure.quiet import WAIT_S, Quiet
from harness.records.cell import Goal
from harness.records.measurement import CROWDED
from harness.records.store import read
from harness.report.frame import summary_frame

CPU = Device("cpu", "a CPU", 8 << 30, threads=2)
CARD = Device("cuda:0", "a card", 8 << 30)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(cpu_load, "cores", lambda: 2)


class Sweep:
    """What the user sees of it."""

    def __init__(self, machine, device=CPU, force=False, before_s=3):
        self.machine, self.notes, self.phases = machine, [], []
        self.quiet = Quiet(device, machine.meter(), self.notes.append, self.phases.append, force)
        machine.time += before_s  # the device was looked at meanwhile

    def wait(self):
        before = self.machine.slept
        self.quiet.wait()
        return self.machine.slept - before


def test_a_quiet_machine_costs_no_time_and_no_word():
    busy = Sweep(Machine(0.1))
    assert busy.wait() == 0
    assert not busy.notes and not busy.phases


def test_without_a_look_before_it_takes_a_second():
    assert Sweep(Machine(0.1), before_s=0).wait() == 1


def test_others_are_waited_for_and_it_says_so():
    """They use both cores for 10 s, 3 of which were over before."""
    busy = Sweep(Machine(*[2.0] * 10, 0.0))
    assert busy.wait() == 8
    first, second = busy.notes
    assert first == "others use 2.0 of 2 cores: waiting up to 60 s for them (--force goes on)"
    assert second == "quiet after 8 s"
    assert busy.phases[0] == {"phase": "waiting, others use 2.0 of 2 cores"}


def test_what_was_over_before_the_cell_is_not_waited_for():
    """A burst while the device was looked at: the next second is quiet."""
    assert Sweep(Machine(2.0, 0.0), before_s=2).wait() == 1


def test_the_waiting_of_a_whole_sweep_is_bounded():
    busy = Sweep(Machine(2.0))
    assert busy.wait() == WAIT_S
    assert "still use 2.0 of 2 cores: going on" in busy.notes[-1]
    assert busy.wait() == 0 and len(busy.notes) == 2


@pytest.mark.parametrize("sweep", [{"force": True}, {"device": CARD}])
def test_with_force_and_on_a_card_nothing_is_waited_for(sweep):
    busy = Sweep(Machine(2.0), **sweep)
    assert busy.wait() == 0
    assert not busy.notes


def test_after_a_cell_that_was_sampled_in_quiet_there_is_no_look():
    busy = Sweep(Machine(0.0))
    assert busy.quiet.sampled(row(others_cpu=0.05, steal=0.0)) == ()
    assert busy.wait() == 0
    assert busy.quiet.sampled(row(others_cpu=1.5, steal=0.5)) == (CROWDED,)
    assert busy.wait() == 1
    assert busy.quiet.sampled(row(status="oom")) == ()
    assert busy.wait() == 1


def test_a_card_is_marked_where_the_process_that_launches_its_kernels_starves():
    busy = Sweep(Machine(0.0), device=CARD)
    assert busy.quiet.sampled(row(others_cpu=1.2)) == ()
    assert busy.quiet.sampled(row(others_cpu=1.8))


def test_a_cell_of_another_machine_is_not_judged_by_the_cores_of_this_one():
    machine = Machine(2.0)
    notes = []
    quiet = Quiet(CPU, machine.meter(), notes.append, pytest.fail, force=False, on_this_machine=False)
    quiet.wait()
    assert quiet.sampled(row(others_cpu=1.8, steal=0.2)) == ()
    assert machine.slept == 0 and not notes


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    return Bench(tmp_path)


@pytest.mark.parametrize(("force", "waited"), [(False, 4), (True, 0)])
def test_a_sweep_waits_before_its_cells_and_force_does_not(bench, monkeypatch, force, waited):
    machine = Machine(*[2.0] * 4, 0.0)
    monkeypatch.setattr(sweep, "CpuMeter", machine.meter)
    watch = Watch()
    bench.run(contexts=(64,), force=force, watch=watch)
    assert machine.slept == (waited and waited + 1)
    assert any("waiting up to" in note for note in watch.notes) == bool(waited)


def test_a_row_that_was_timed_beside_others_is_marked_in_the_record(bench, capsys):
    bench.will_measure(others_cpu=2.0, steal=0.0, notes=["of attention o_proj alone is adapted here"])
    bench.run(contexts=(64,))
    (marked,) = read(bench.results / "records.jsonl")[0]
    assert marked.others_cpu == 2.0
    assert marked.notes[0].startswith("of attention") and marked.notes[1] == CROWDED
    (columns,) = summary_frame([marked], Goal(12, 1000, 400))
    assert columns["others_cpu"] == 2.0 and "timed while others used" in columns["notes"]
    bench.will_measure(others_cpu=0.1, steal=0.0)
    (row,) = bench.run(contexts=(64,), fresh=True)[0].rows
    assert row.notes == () and row.others_cpu == 0.1
