"""An arm that is stopped or killed goes on to the same end, and what cannot be kept is said."""

import resource
from dataclasses import replace

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import RECIPE, STEPS, Stopped, Watched, arms_of, spec_of, stop_at, timeless

from harness.records.arm import ROWS, SHARED, TASK
from harness.records.store import Store
from harness.tune.checkpoint import Checkpointer, discard, path_of


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize(
    ("scope", "every_s"),
    [(SHARED, 0.0), (SHARED, 1e9), (TASK, 0.0)],
    ids=["one for all, kept at every step", "one for all, kept at halving steps", "one a task, kept at every step"],
)
def test_stopped_anywhere_it_goes_on_to_the_same_adapter_and_outcome(tmp_path, arc_folder, scope, curve, every_s):
    """One arm undisturbed, and stopped at some steps, each time in a newly loaded model; every adapter is compared."""
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, scope=scope, curve=curve)
    whole = Watched(spec, tasks, solutions, tmp_path / "whole.pt", every_s)
    assert whole.steps == list(range(1, (1 if scope == SHARED else 3) * STEPS + 1))
    assert not torch.equal(*(next(iter(adapter.values())) for adapter in whole.adapters[:2]))
    path = tmp_path / "stopped.pt"
    for stop in (4, 6, 7) if scope == SHARED else (4, 9, 14, 23):
        stopped = Watched(spec, tasks, solutions, path, every_s, stop)
        assert stopped.outcome is None
    rest = Watched(spec, tasks, solutions, path, every_s)
    assert rest.notes == ["going on from a checkpoint"]
    assert 0 < len(rest.steps) < len(whole.steps) - 2  # it did go on, and not from the beginning
    rest.same_end(whole)
    if curve:
        assert [step for step, *_ in rest.outcome.curve] == [1, 2, 4, 8]


@pytest.mark.parametrize("scope", [SHARED, TASK])
def test_with_dropout_too_a_stopped_arm_comes_to_the_same_end(tmp_path, arc_folder, scope):
    """Dropout draws anew at every step: where it stood is part of the state, between two tasks as within one."""
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, scope=scope, recipe=replace(RECIPE, lora_dropout=0.2))
    whole = Watched(spec, tasks, solutions, tmp_path / "whole.pt", 0.0)
    for stop in (6,) if scope == SHARED else (6, 9):
        path = tmp_path / f"{stop}.pt"
        Watched(spec, tasks, solutions, path, 0.0, stop)
        Watched(spec, tasks, solutions, path, 0.0).same_end(whole)


def test_an_arm_does_not_depend_on_the_arms_before_it(tmp_path, arc_folder):
    """As the record may hold some arms already, each must come out the same alone; with dropout too."""
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks, recipe=replace(RECIPE, lora_dropout=0.2))
    both, _ = arms_of(spec, tasks, solutions, tmp_path / "both", "n-1, + geometric")
    alone, _ = arms_of(spec, tasks, solutions, tmp_path / "alone", "+ geometric")
    assert timeless(both[1]) == timeless(alone[0])


@pytest.mark.parametrize("curve", [False, True])
def test_a_stopped_run_leaves_the_row_of_one_that_ran_through(tmp_path, arc_folder, curve):
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks, curve=curve)
    (whole,), notes = arms_of(spec, tasks, solutions, tmp_path / "whole")
    assert not any("checkpoint" in line for line in notes)
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        arms_of(spec, tasks, solutions, folder, on_step=stop_at(5)[0])
    (kept,) = (folder / "checkpoints").iterdir()
    assert kept.name == f"{whole.key}.pt"
    on_step, seen = stop_at(None)
    (resumed,), notes = arms_of(spec, tasks, solutions, folder, on_step=on_step)
    assert seen[0] == 5 and "going on from a checkpoint" in notes  # the last one kept was that of step 4
    assert timeless(resumed) == timeless(whole)
    assert Store(folder, kind=ROWS).rows() == {whole.key: resumed}
    assert list((folder / "checkpoints").iterdir()) == []  # the row is in the record: the checkpoint is gone


@pytest.mark.parametrize("stop", [3, STEPS + 3])
def test_a_run_with_one_adapter_a_task_stopped_early_leaves_the_same_row(tmp_path, arc_folder, stop):
    """Within the first seconds nothing is kept of so short tasks: all of them are trained anew, to the same end."""
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks, scope=TASK, curve=True)
    (whole,), _ = arms_of(spec, tasks, solutions, tmp_path / "whole")
    with pytest.raises(Stopped):
        arms_of(spec, tasks, solutions, tmp_path / "stopped", on_step=stop_at(stop)[0])
    (resumed,), _ = arms_of(spec, tasks, solutions, tmp_path / "stopped")
    assert timeless(resumed) == timeless(whole)
    checkpoints = tmp_path / "stopped" / "checkpoints"
    assert not checkpoints.exists() or list(checkpoints.iterdir()) == []


def test_fresh_begins_anew_whatever_is_kept(tmp_path, arc_folder):
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    with pytest.raises(Stopped):
        arms_of(spec, tasks, solutions, tmp_path, on_step=stop_at(5)[0])
    on_step, seen = stop_at(None)
    arms_of(spec, tasks, solutions, tmp_path, on_step=on_step, fresh=True)
    assert seen == list(range(1, STEPS + 1))


def _torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        _torn,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage" * 99),
        lambda path: torch.save({"done": [{"of": "another version of this program"}], "current": {}}, path),
    ],
    ids=["torn", "empty", "garbage", "of another version"],
)
def test_a_checkpoint_that_cannot_be_read_is_said_and_the_arm_starts_anew(tmp_path, arc_folder, spoil):
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    (whole,), _ = arms_of(spec, tasks, solutions, tmp_path / "whole")
    with pytest.raises(Stopped):
        arms_of(spec, tasks, solutions, tmp_path / "stopped", on_step=stop_at(5)[0])
    spoil(tmp_path / "stopped" / "checkpoints" / f"{whole.key}.pt")
    on_step, seen = stop_at(None)
    (again,), notes = arms_of(spec, tasks, solutions, tmp_path / "stopped", on_step=on_step)
    assert seen == list(range(1, STEPS + 1))
    assert timeless(again) == timeless(whole)
    (line,) = [line for line in notes if "is put aside" in line]
    assert "starts anew" in line and "\n" not in line
    assert list((tmp_path / "stopped" / "checkpoints").iterdir()) == []


def test_without_room_for_checkpoints_it_is_said_once_and_training_goes_on(tmp_path, arc_folder):
    """A file where the folder should be: nothing can be written there by anyone, the administrator included."""
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    (whole,), _ = arms_of(spec, tasks, solutions, tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "checkpoints").write_text("mine")
    for fresh in (False, True):
        (kept,), notes = arms_of(spec, tasks, solutions, tmp_path / "full", fresh=fresh)
        assert len([line for line in notes if "no checkpoint can be kept" in line]) == 1
        assert timeless(kept) == timeless(whole)
    assert (tmp_path / "full" / "checkpoints").read_text() == "mine"


def test_a_full_disk_is_said_once_and_leaves_nothing_half_written(tmp_path):
    notes, path = [], tmp_path / "arm.pt"
    checkpointer = Checkpointer(path, notes.append, every_s=0.0)
    checkpointer.save(lambda: {"done": [], "a": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        for _ in range(3):
            checkpointer.save(lambda: {"done": [], "a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(notes) == 1 and "no checkpoint can be kept" in notes[0] and "\n" not in notes[0]
    assert [p.name for p in tmp_path.iterdir()] == ["arm.pt"]
    assert Checkpointer(path, notes.append).load()["a"] == 1  # the last good one is still there


def test_nothing_is_kept_before_its_time(tmp_path):
    path = path_of(tmp_path, "arm")
    checkpointer = Checkpointer(path, print, every_s=1e9)
    checkpointer.save(lambda: pytest.fail("a state was asked for"))
    assert list(tmp_path.iterdir()) == []
    checkpointer.save(lambda: {"a": 1}, now=True)
    assert Checkpointer(path, print).load() == {"a": 1}
    discard(tmp_path, "arm")
    discard(tmp_path, "arm")
    assert list(path.parent.iterdir()) == []


class Clock:
    """Seconds pass while a state is made to be saved, and between steps."""

    def __init__(self, save_s):
        self.now, self.save_s, self.saves = 0.0, save_s, 0

    def state(self):
        self.now += self.save_s
        self.saves += 1
        return {}


@pytest.mark.parametrize(("save_s", "saves"), [(0.1, 333), (2.0, 100), (20.0, 10)])
def test_saving_takes_two_percent_of_the_time_at_most(tmp_path, save_s, saves):
    """10,000 steps of a second: every 30 s where a save costs little, every 100 s or 1000 s where it takes 2 or 20."""
    clock = Clock(save_s)
    checkpointer = Checkpointer(tmp_path / "state.pt", print, clock=lambda: clock.now)
    for _ in range(10_000):
        clock.now += 1.0
        checkpointer.save(clock.state)
    assert clock.saves == pytest.approx(saves, abs=1)
