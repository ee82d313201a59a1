"""A checkpoint in a results folder is data: one that no run of this kind can have saved is put aside."""

import copy

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import STEPS, Watched, spec_of

from harness.records.arm import TASK
from harness.tune.checkpoint import FORMAT
from harness.tune.saved_state import checked


@pytest.fixture(scope="module")
def stopped(arc_folder, tmp_path_factory):
    """(the state of an arm with one adapter per task, stopped in its second task, and the arguments of `checked`)."""
    tasks, solutions = made_tasks(3)
    path = tmp_path_factory.mktemp("stopped") / "arm.pt"
    spec = spec_of(arc_folder, tasks, scope=TASK, curve=True)
    watched = Watched(spec, tasks, solutions, path, 0.0, STEPS + 4)
    state = torch.load(path, weights_only=True)
    assert state.pop("format") == FORMAT
    return state, (spec, [[task] for task in tasks], watched.runner.adapter.first)


def test_what_a_run_saved_fits_it(stopped):
    state, run = stopped
    kept = checked(copy.deepcopy(state), *run)
    assert len(kept["done"]) == 1 and kept["current"]["examples"][0] == 3 * 2
    assert torch.equal(*(each["current"]["training"]["random"][0] for each in (kept, state)))


def _set(value, *path):
    def spoil(state):
        *way, last = path
        for step in way:
            state = state[step]
        state[last] = value(state[last]) if callable(value) else value

    return spoil


def _first_answer(value):
    def spoil(state):
        answers = state["done"][0]["answers"]
        answers[next(iter(answers))][0][0] = value

    return spoil


_TRAINING = ("current", "training")
SPOILED = {
    "done is text": _set("yes", "done"),
    "done of something else": _set([{"zz": 1}], "done"),
    "done of other tasks": _set({"other": [[None, None]]}, "done", 0, "answers"),
    "done with a colour 10": _first_answer(((10,),)),
    "done with a ragged grid": _first_answer(((1, 2), (3,))),
    "done with an empty grid": _first_answer(()),
    "done with too few steps": _set(lambda losses: losses[1:], "done", 0, "step_losses"),
    "done with other examples": _set(10**12, "done", 0, "used"),
    "done in negative time": _set(-1.0, "done", 0, "train_s"),
    "done with text for seconds": _set("1 s", "done", 0, "decode_s"),
    "done with other points": _set([(7, {}, [])], "done", 0, "curve"),
    "more than there is": _set(lambda done: done * 4, "done"),
    "current without an adapter": lambda state: state["current"]["training"].pop("adapter"),
    "current is a number": _set(5, "current"),
    "an adapter of another shape": lambda state: _replace(state, lambda value: value[:1]),
    "an adapter of whole numbers": lambda state: _replace(state, lambda value: value.long()),
    "an adapter of text": lambda state: _replace(state, lambda value: "x"),
    "a forged number of examples": _set((10**12, 0), "current", "examples"),
    "a forged number of long examples": _set((6, 10**12), "current", "examples"),
    "more steps than asked for": _set(lambda losses: losses * 99, *_TRAINING, "tuned", "losses"),
    "losses of text": _set(["a"], *_TRAINING, "tuned", "losses"),
    "no time at all": _set(float("nan"), *_TRAINING, "tuned", "seconds"),
    "moments of another shape": _set(lambda m: m[:1], *_TRAINING, "step", "optimizer", "state", 0, "exp_avg"),
    "moments of no parameter": _set(lambda s: s | {999: s[0]}, *_TRAINING, "step", "optimizer", "state"),
    "steps of another run": _set(torch.tensor(1e6), *_TRAINING, "step", "optimizer", "state", 0, "step"),
    "an optimiser of nothing": _set([], *_TRAINING, "step", "optimizer", "param_groups"),
    "no optimiser": _set({}, *_TRAINING, "step"),
    "random states of zeros": _set([torch.zeros(3)], *_TRAINING, "random"),
    "no random state": _set([], *_TRAINING, "random"),
}


def _replace(state, change):
    adapter = state["current"]["training"]["adapter"]
    name = next(iter(adapter))
    adapter[name] = change(adapter[name])


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_what_no_run_can_have_saved_is_refused(stopped, spoil):
    state, run = stopped
    state = copy.deepcopy(state)
    spoil(state)
    with pytest.raises(ValueError, match=r"."):
        checked(state, *run)


@pytest.mark.parametrize("forged", [torch.zeros(3), "text", 5, None, {"format": FORMAT, "done": [{"zz": 1}]}], ids=str)
def test_a_forged_file_is_put_aside_and_the_arm_starts_anew(tmp_path, arc_folder, forged):
    tasks, solutions = made_tasks(2)
    path = tmp_path / "arm.pt"
    torch.save(forged, path)
    anew = Watched(spec_of(arc_folder, tasks), tasks, solutions, path, 1e9)
    assert anew.steps == list(range(1, STEPS + 1))
    (note,) = anew.notes
    assert "put aside" in note and "starts anew" in note and "\n" not in note
    assert path.with_suffix(".unusable").exists()
