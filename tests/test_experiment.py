"""Arms through the whole experiment: stopped and gone on, blind to the solutions, one adapter for all or one a task."""

import os
from dataclasses import replace

import pytest
import torch
from conftest import made_puzzles

from harness.arc.score import score
from harness.arc.tasks import Pair, Puzzle
from harness.catalog import models as catalog
from harness.errors import UserError
from harness.profile.store import Store
from harness.records import Recipe
from harness.tune import arms
from harness.tune.experiment import Outcome, Subject, joined, run
from harness.tune.keep import Keeper
from harness.tune.record import DROP, ROWS, SHARED, TASK, Trial

STEPS = 8
RECIPE = Recipe(lora_r=4, sequences_per_step=2, learning_rate=1e-2)


def _trial(folder, puzzles, **changes):
    said = {
        "model": catalog.from_folder(folder),
        "weights": str(folder),
        "precision": "fp32",
        "compute_dtype": "fp32",
        "device": "cpu",
        "device_name": "a CPU",
        "recipe": RECIPE,
        "source": "made",
        "tasks": tuple(puzzle.id for puzzle in puzzles),
        "steps": STEPS,
        "context": 512,
        "encoding": "rows",
        "views": 2,
        "seed": 0,
    }
    return Trial(**(said | changes))


def _run(trial, puzzles, solutions, folder, names="n-1", on_step=lambda *_: None, **how):
    """The rows of the arms, and what was said."""
    said = []
    store = Store(folder, kind=ROWS)
    return run(trial, puzzles, solutions, arms.choose(names), store, said.append, on_step, **how), said


def _same(row):
    """A row without what no two runs have in common."""
    return replace(row, started="", train_s=0.0, decode_s=0.0)


class Stopped(Exception):
    pass


def _stop_at(number):
    seen = []

    def on_step(arm, step, total, loss):
        seen.append(step)
        if step == number:
            raise Stopped

    return on_step, seen


class Watched:
    """A Subject and its arm, with the adapter's values after every step; `stop` ends it at that one."""

    def __init__(self, trial, puzzles, solutions, path, every_s, stop=None, arm="n-1"):
        self.steps, self.adapters, self.said = [], [], []
        self.subject = Subject(trial, puzzles, {name: solutions[name] for name in trial.tasks})

        def on_step(arm, step, total, loss):
            if step == stop:
                raise Stopped
            self.steps.append(step)
            self.adapters.append(self.subject.adapter.values())

        keeper = Keeper(path, self.said.append, every_s=every_s)
        try:
            self.outcome = self.subject.through(arms.ARMS[arm], keeper, on_step)
        except Stopped:
            self.outcome = None

    def same_end(self, other):
        """Whether this one, which began later, did what `other` did from there on, to the bit."""
        count = len(self.steps)
        assert other.steps[-count:] == self.steps
        for mine, theirs in zip(self.adapters, other.adapters[-count:], strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        timeless = {"train_s": 0.0, "decode_s": 0.0}
        assert replace(self.outcome, **timeless) == replace(other.outcome, **timeless)


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize(
    ("scope", "every_s"),
    [(SHARED, 0.0), (SHARED, 1e9), (TASK, 0.0)],
    ids=["one for all, kept at every step", "one for all, kept at halving steps", "one a task, kept at every step"],
)
def test_stopped_anywhere_it_goes_on_to_the_same_adapter_and_outcome(tmp_path, arc_folder, scope, curve, every_s):
    """One arm undisturbed, and stopped at some steps, each time in a newly loaded model; every adapter is compared."""
    puzzles, solutions = made_puzzles(3)
    trial = _trial(arc_folder, puzzles, scope=scope, curve=curve)
    whole = Watched(trial, puzzles, solutions, tmp_path / "whole.pt", every_s)
    assert whole.steps == list(range(1, (1 if scope == SHARED else 3) * STEPS + 1))
    assert not torch.equal(*(next(iter(adapter.values())) for adapter in whole.adapters[:2]))
    path = tmp_path / "stopped.pt"
    for stop in (4, 6, 7) if scope == SHARED else (4, 9, 14, 23):
        begun = Watched(trial, puzzles, solutions, path, every_s, stop)
        assert begun.outcome is None
    rest = Watched(trial, puzzles, solutions, path, every_s)
    assert rest.said == ["going on from a checkpoint"]
    assert 0 < len(rest.steps) < len(whole.steps) - 2  # it did go on, and not from the beginning
    rest.same_end(whole)
    if curve:
        assert [step for step, *_ in rest.outcome.curve] == [1, 2, 4, 8]


@pytest.mark.parametrize("scope", [SHARED, TASK])
def test_with_dropout_too_a_stopped_arm_comes_to_the_same_end(tmp_path, arc_folder, scope):
    """Dropout draws anew at every step: where it stood is part of the state, between two tasks as within one."""
    puzzles, solutions = made_puzzles(3)
    trial = _trial(arc_folder, puzzles, scope=scope, recipe=replace(RECIPE, lora_dropout=0.2))
    whole = Watched(trial, puzzles, solutions, tmp_path / "whole.pt", 0.0)
    for stop in (6,) if scope == SHARED else (6, 9):
        path = tmp_path / f"{stop}.pt"
        Watched(trial, puzzles, solutions, path, 0.0, stop)
        Watched(trial, puzzles, solutions, path, 0.0).same_end(whole)


def test_an_arm_does_not_depend_on_the_arms_before_it(tmp_path, arc_folder):
    """As the record may hold some arms already, each must come out the same alone; with dropout too."""
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles, recipe=replace(RECIPE, lora_dropout=0.2))
    both, _ = _run(trial, puzzles, solutions, tmp_path / "both", "n-1, + geometric")
    alone, _ = _run(trial, puzzles, solutions, tmp_path / "alone", "+ geometric")
    assert _same(both[1]) == _same(alone[0])


@pytest.mark.parametrize("curve", [False, True])
def test_a_stopped_run_leaves_the_row_of_one_that_ran_through(tmp_path, arc_folder, curve):
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles, curve=curve)
    (whole,), said = _run(trial, puzzles, solutions, tmp_path / "whole")
    assert not any("checkpoint" in line for line in said)
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        _run(trial, puzzles, solutions, folder, on_step=_stop_at(5)[0])
    (kept,) = (folder / "checkpoints").iterdir()
    assert kept.name == f"{whole.key}.pt"
    on_step, seen = _stop_at(None)
    (found,), said = _run(trial, puzzles, solutions, folder, on_step=on_step)
    assert seen[0] == 5 and "going on from a checkpoint" in said  # the last one kept was that of step 4
    assert _same(found) == _same(whole)
    assert Store(folder, kind=ROWS).rows() == {whole.key: found}
    assert list((folder / "checkpoints").iterdir()) == []  # the row is in the record: the checkpoint is gone


@pytest.mark.parametrize("stop", [3, STEPS + 3])
def test_a_run_with_one_adapter_a_task_stopped_early_leaves_the_same_row(tmp_path, arc_folder, stop):
    """Within the first seconds nothing is kept of so short tasks: all of them are trained anew, to the same end."""
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles, scope=TASK, curve=True)
    (whole,), _ = _run(trial, puzzles, solutions, tmp_path / "whole")
    with pytest.raises(Stopped):
        _run(trial, puzzles, solutions, tmp_path / "stopped", on_step=_stop_at(stop)[0])
    (found,), _ = _run(trial, puzzles, solutions, tmp_path / "stopped")
    assert _same(found) == _same(whole)
    checkpoints = tmp_path / "stopped" / "checkpoints"
    assert not checkpoints.exists() or list(checkpoints.iterdir()) == []


def test_fresh_begins_anew_whatever_is_kept(tmp_path, arc_folder):
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles)
    with pytest.raises(Stopped):
        _run(trial, puzzles, solutions, tmp_path, on_step=_stop_at(5)[0])
    on_step, seen = _stop_at(None)
    _run(trial, puzzles, solutions, tmp_path, on_step=on_step, fresh=True)
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
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles)
    (whole,), _ = _run(trial, puzzles, solutions, tmp_path / "whole")
    with pytest.raises(Stopped):
        _run(trial, puzzles, solutions, tmp_path / "stopped", on_step=_stop_at(5)[0])
    spoil(tmp_path / "stopped" / "checkpoints" / f"{whole.key}.pt")
    on_step, seen = _stop_at(None)
    (found,), said = _run(trial, puzzles, solutions, tmp_path / "stopped", on_step=on_step)
    assert seen == list(range(1, STEPS + 1))
    assert _same(found) == _same(whole)
    (line,) = [line for line in said if "cannot be read" in line]
    assert "starts anew" in line and "\n" not in line
    assert list((tmp_path / "stopped" / "checkpoints").iterdir()) == []


def test_without_room_for_checkpoints_it_is_said_once_and_training_goes_on(tmp_path, arc_folder):
    """A file where the folder should be: nothing can be written there by anyone, the administrator included."""
    puzzles, solutions = made_puzzles(2)
    trial = _trial(arc_folder, puzzles)
    (whole,), _ = _run(trial, puzzles, solutions, tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "checkpoints").write_text("mine")
    for fresh in (False, True):
        (found,), said = _run(trial, puzzles, solutions, tmp_path / "full", fresh=fresh)
        assert len([line for line in said if "no checkpoint can be kept" in line]) == 1
        assert _same(found) == _same(whole)
    assert (tmp_path / "full" / "checkpoints").read_text() == "mine"


def test_a_full_disk_is_said_once_and_leaves_nothing_half_written(tmp_path):
    said, path = [], tmp_path / "arm.pt"
    keeper = Keeper(path, said.append, every_s=0.0)
    keeper.keep(lambda: {"done": [], "a": 1})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.symlink_to("/dev/full")
    for _ in range(3):
        keeper.keep(lambda: {"done": [], "a": torch.zeros(100_000)})
    assert len(said) == 1 and "no checkpoint can be kept" in said[0] and "\n" not in said[0]
    assert [p.name for p in tmp_path.iterdir()] == ["arm.pt"]
    assert Keeper(path, said.append).load()["a"] == 1  # the last good one is still there


def test_nothing_is_kept_before_its_time(tmp_path):
    keeper = Keeper(tmp_path / "arm.pt", print, every_s=1e9)
    keeper.keep(lambda: pytest.fail("a state was asked for"))
    assert list(tmp_path.iterdir()) == []
    keeper.keep(lambda: {"a": 1}, now=True)
    assert Keeper(tmp_path / "arm.pt", print).load() == {"a": 1}
    keeper.done()
    keeper.done()
    assert list(tmp_path.iterdir()) == []


# --- what training sees


@pytest.mark.parametrize("scope", [SHARED, TASK])
@pytest.mark.parametrize("name", ["n-1", "+ color swap", "n-2", "on the fly"])
def test_test_outputs_are_never_seen_by_training(tmp_path, arc_folder, scope, name):
    """The same arm with other solutions, of another shape: every adapter, loss and answer on the way is the same."""
    puzzles, solutions = made_puzzles(3)
    others = {name: (((9, 9, 9, 9), (0, 0, 0, 0), (1, 2, 3, 4)),) for name in solutions}
    recipe = replace(RECIPE, learning_rate=1e-3)  # low enough to leave it answering with grids
    trial = _trial(arc_folder, puzzles, scope=scope, curve=True, recipe=recipe)
    one = Watched(trial, puzzles, solutions, tmp_path / "one.pt", 1e9, arm=name)
    two = Watched(trial, puzzles, others, tmp_path / "two.pt", 1e9, arm=name)
    for mine, theirs in zip(one.adapters, two.adapters, strict=True):
        assert all(torch.equal(mine[p], theirs[p]) for p in theirs)
    one, two = one.outcome, two.outcome
    assert len(one.step_losses) == STEPS
    assert one.step_losses == two.step_losses
    assert one.answers == two.answers
    assert any(grid for task in one.answers.values() for views in task for grid in views)
    assert [(step, answers) for step, answers, _ in one.curve] == [(step, answers) for step, answers, _ in two.curve]
    assert one.losses != two.losses  # where solutions may be seen, they were: in the answers' likelihoods


def test_solutions_change_nothing_of_a_row_but_its_scores(tmp_path, arc_folder):
    puzzles, solutions = made_puzzles(3)
    trial = _trial(arc_folder, puzzles)
    (one,), _ = _run(trial, puzzles, solutions, tmp_path / "one")
    told = {name: tried[0][:1] or solutions[name] for name, tried in one.attempts.items()}
    assert told != solutions
    (two,), _ = _run(trial, puzzles, told, tmp_path / "two")
    assert (one.step_losses, one.attempts, one.key) == (two.step_losses, two.attempts, two.key)
    answered = [s.answered for s in one.scores]
    assert 1.0 in answered and [s.attempts for s in two.scores] == answered  # what was answered is now right


def test_a_task_of_one_demonstration_stays_in_the_denominator(tmp_path, arc_folder):
    """With one adapter a task it cannot be trained: it is counted, and answered as the baseline answers it."""
    puzzles, solutions = made_puzzles(3)
    puzzles[1] = replace(puzzles[1], pairs=puzzles[1].pairs[:1])
    trial = _trial(arc_folder, puzzles, scope=TASK, curve=True)
    (base, tuned), _ = _run(trial, puzzles, solutions, tmp_path, "baseline, n-1")
    assert (base.untrained, tuned.untrained) == (0, 1)
    assert [s.id for s in tuned.scores] == ["t0", "t1", "t2"]
    assert tuned.attempts["t1"] == base.attempts["t1"]
    assert tuned.answer_losses[1] == base.answer_losses[1]
    assert tuned.answer_losses[0] != base.answer_losses[0]
    assert tuned.used == 2 * STEPS * RECIPE.sequences_per_step
    assert [len(c.scores) for c in tuned.checkpoints] == [3] * 4
    assert (base.steps, tuned.steps) == (0, STEPS)


def test_with_one_adapter_for_all_a_task_of_one_demonstration_is_answered_too(tmp_path, arc_folder):
    puzzles, solutions = made_puzzles(2)
    lone = [replace(puzzle, pairs=puzzle.pairs[:1]) for puzzle in puzzles]
    (found,), _ = _run(_trial(arc_folder, puzzles), [puzzles[0], lone[1]], solutions, tmp_path / "one")
    assert len(found.scores) == 2 and found.untrained == 0
    with pytest.raises(UserError, match="no task has the two demonstrations"):
        _run(_trial(arc_folder, puzzles), lone, solutions, tmp_path / "none")


def test_every_task_has_an_adapter_of_its_own(tmp_path, arc_folder):
    """With one adapter a task its answers do not depend on which other tasks there are."""
    puzzles, solutions = made_puzzles(3)
    (three,), _ = _run(_trial(arc_folder, puzzles, scope=TASK), puzzles, solutions, tmp_path / "three")
    (last,), _ = _run(_trial(arc_folder, puzzles[2:], scope=TASK), puzzles[2:], solutions, tmp_path / "last")
    assert three.attempts["t2"] == last.attempts["t2"]
    assert three.answer_losses[2] == last.answer_losses[0]
    (shared,), _ = _run(_trial(arc_folder, puzzles), puzzles, solutions, tmp_path / "shared")
    assert three.answer_losses != shared.answer_losses


def test_outcomes_joined_by_hand():
    """Step losses (3, 1) and (1, 0) are (2, 0.5) on average; the untrained task has none and keeps its answers."""
    a, b, c = (((i,),) for i in range(3))
    first = Outcome(
        {"x": [[a]]}, [(1.0, 2)], [3.0, 1.0], [(1, {"x": [[b]]}, [(2.0, 2)]), (2, {"x": [[a]]}, [(1.0, 2)])]
    )
    first.train_s, first.used, first.asked = 2.0, 4, 1
    second = replace(first, answers={"y": [[b]]}, step_losses=[1.0, 0.0])
    second.curve = [(1, {"y": [[a]]}, [(3.0, 2)]), (2, {"y": [[b]]}, [(1.0, 2)])]
    third = Outcome({"z": [[c]]}, [(5.0, 1)], untrained=1, asked=1, decode_s=0.5)
    found = joined([first, second, third])
    assert found.answers == {"x": [[a]], "y": [[b]], "z": [[c]]}
    assert found.step_losses == [2.0, 0.5]
    assert (found.train_s, found.decode_s, found.used, found.asked, found.untrained) == (4.0, 0.5, 8, 3, 1)
    assert found.losses == [(1.0, 2), (1.0, 2), (5.0, 1)]
    assert found.curve == [
        (1, {"x": [[b]], "y": [[a]], "z": [[c]]}, [(2.0, 2), (3.0, 2), (5.0, 1)]),
        (2, {"x": [[a]], "y": [[b]], "z": [[c]]}, [(1.0, 2), (1.0, 2), (5.0, 1)]),
    ]


# --- what fits


def _long():
    """Two puzzles of 8 x 8 cells. A grid is 1 + 71 tokens, three demonstrations and the question 1 + 7 x 72 + 1 = 506,
    one demonstration and the question 1 + 3 x 72 + 1 = 218; an answer has room for 2 x 71 + 32 = 174 more."""
    grid = tuple(tuple((i * j) % 10 for j in range(8)) for i in range(8))
    pairs = tuple(Pair(grid, grid[::-1]) for _ in range(3))
    return [Puzzle(name, pairs, (grid,)) for name in "ab"], {name: (grid[::-1],) for name in "ab"}


def test_dropping_long_prompts_asks_fewer_questions_than_shortening(tmp_path, arc_folder):
    puzzles, solutions = made_puzzles(2)
    long, answers = _long()
    both, truths = [*puzzles, *long], solutions | answers
    (cut,), _ = _run(_trial(arc_folder, both, context=400), both, truths, tmp_path / "cut")
    (dropped,), _ = _run(_trial(arc_folder, both, context=400, too_long=DROP), both, truths, tmp_path / "dropped")
    assert (cut.asked, cut.unasked) == (8, 0)
    assert (dropped.asked, dropped.unasked) == (4, 4)
    assert cut.coverage == dropped.coverage and cut.coverage.questions_fit == 2
    assert dropped.attempts["a"] == dropped.attempts["b"] == ((),)
    assert [s.answered for s in dropped.scores][2:] == [0.0, 0.0] and len(dropped.scores) == 4
    assert score({}, truths)[2:] == list(dropped.scores[2:])  # wrong, and in the denominator


@pytest.mark.parametrize("context", [64, 180, 290])
def test_where_no_question_fits_it_is_one_line(tmp_path, arc_folder, context):
    """One demonstration and the question are 218 tokens, and 392 with the room for the answer."""
    long, answers = _long()
    with pytest.raises(UserError, match=f"none of 2 tasks fits {context} tokens") as error:
        _run(_trial(arc_folder, long, context=context), long, answers, tmp_path, "baseline")
    assert "\n" not in str(error.value) and "--context" in str(error.value)
    assert Store(tmp_path, kind=ROWS).rows() == {}
