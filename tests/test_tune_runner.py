"""What training sees of the tasks, and what is asked: never a solution, with one adapter for all or one a task."""

from dataclasses import replace

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import RECIPE, STEPS, InProcess, Watched, arms_of, spec_of, timeless

from harness.arc.encode import from_rows
from harness.arc.score import score
from harness.arc.task import Pair, Task
from harness.errors import UserError
from harness.hardware.cpu_load import CpuLoad, cores
from harness.records.arm import DROP, ROWS, SHARED, TASK
from harness.records.store import Store
from harness.train.step import TrainingStep
from harness.tune import decode, runner
from harness.tune.outcome import ArmOutcome, joined


@pytest.mark.parametrize("scope", [SHARED, TASK])
@pytest.mark.parametrize("name", ["n-1", "+ color swap", "n-2", "on the fly"])
def test_test_outputs_are_never_seen_by_training(tmp_path, arc_folder, scope, name):
    """The same arm with other solutions, of another shape: every adapter, loss and answer on the way is the same."""
    tasks, solutions = made_tasks(3)
    others = {name: (((9, 9, 9, 9), (0, 0, 0, 0), (1, 2, 3, 4)),) for name in solutions}
    recipe = replace(RECIPE, learning_rate=1e-3)  # low enough to leave it answering with grids
    spec = spec_of(arc_folder, tasks, scope=scope, curve=True, recipe=recipe)
    one = Watched(spec, tasks, solutions, tmp_path / "one.pt", 1e9, arm=name)
    two = Watched(spec, tasks, others, tmp_path / "two.pt", 1e9, arm=name)
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
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks)
    (one,), _ = arms_of(spec, tasks, solutions, tmp_path / "one")
    answered = {name: tuple(map(from_rows, tried[0][:1])) for name, tried in one.attempts.items()}
    others = {name: first or solutions[name] for name, first in answered.items()}
    assert others != solutions
    (two,), _ = arms_of(spec, tasks, others, tmp_path / "two")
    assert (one.step_losses, one.attempts, one.key) == (two.step_losses, two.attempts, two.key)
    answered = [s.answered for s in one.scores]
    assert 1.0 in answered and [s.attempts for s in two.scores] == answered  # what was answered is now right


def test_a_task_of_one_demonstration_stays_in_the_denominator(tmp_path, arc_folder):
    """With one adapter a task it cannot be trained: it is counted, and answered as the baseline answers it."""
    tasks, solutions = made_tasks(3)
    tasks[1] = replace(tasks[1], demonstrations=tasks[1].demonstrations[:1])
    spec = spec_of(arc_folder, tasks, scope=TASK, curve=True)
    (base, tuned), _ = arms_of(spec, tasks, solutions, tmp_path, "baseline, n-1")
    assert (base.untrained, tuned.untrained) == (0, 1)
    assert [s.id for s in tuned.scores] == ["t0", "t1", "t2"]
    assert tuned.attempts["t1"] == base.attempts["t1"]
    assert tuned.answer_losses[1] == base.answer_losses[1]
    assert tuned.answer_losses[0] != base.answer_losses[0]
    assert tuned.used == 2 * STEPS * RECIPE.sequences_per_step
    assert [len(c.scores) for c in tuned.curve_points] == [3] * 4
    assert (base.steps, tuned.steps) == (0, STEPS)


def test_with_one_adapter_for_all_a_task_of_one_demonstration_is_answered_too(tmp_path, arc_folder):
    tasks, solutions = made_tasks(2)
    lone = [replace(task, demonstrations=task.demonstrations[:1]) for task in tasks]
    (alone,), _ = arms_of(spec_of(arc_folder, tasks), [tasks[0], lone[1]], solutions, tmp_path / "one")
    assert len(alone.scores) == 2 and alone.untrained == 0
    with pytest.raises(UserError, match="no task has the two demonstrations"):
        arms_of(spec_of(arc_folder, tasks), lone, solutions, tmp_path / "none")


def test_every_task_has_an_adapter_of_its_own(tmp_path, arc_folder):
    """With one adapter a task its answers do not depend on which other tasks there are."""
    tasks, solutions = made_tasks(3)
    (three,), _ = arms_of(spec_of(arc_folder, tasks, scope=TASK), tasks, solutions, tmp_path / "three")
    (last,), _ = arms_of(spec_of(arc_folder, tasks[2:], scope=TASK), tasks[2:], solutions, tmp_path / "last")
    assert three.attempts["t2"] == last.attempts["t2"]
    assert three.answer_losses[2] == last.answer_losses[0]
    (shared,), _ = arms_of(spec_of(arc_folder, tasks), tasks, solutions, tmp_path / "shared")
    assert three.answer_losses != shared.answer_losses


def test_outcomes_joined_by_hand():
    """Step losses (3, 1) and (1, 0) are (2, 0.5) on average; the untrained task has none and keeps its answers."""
    a, b, c = (((i,),) for i in range(3))
    first = ArmOutcome(
        {"x": [[a]]}, [(1.0, 2)], [3.0, 1.0], [(1, {"x": [[b]]}, [(2.0, 2)]), (2, {"x": [[a]]}, [(1.0, 2)])]
    )
    first.train_s, first.used, first.questions = 2.0, 4, 1
    second = replace(first, answers={"y": [[b]]}, step_losses=[1.0, 0.0])
    second.curve = [(1, {"y": [[a]]}, [(3.0, 2)]), (2, {"y": [[b]]}, [(1.0, 2)])]
    third = ArmOutcome({"z": [[c]]}, [(5.0, 1)], untrained=1, questions=1, decode_s=0.5)
    whole = joined([first, second, third])
    assert whole.answers == {"x": [[a]], "y": [[b]], "z": [[c]]}
    assert whole.step_losses == [2.0, 0.5]
    assert (whole.train_s, whole.decode_s, whole.used, whole.questions, whole.untrained) == (4.0, 0.5, 8, 3, 1)
    assert whole.losses == [(1.0, 2), (1.0, 2), (5.0, 1)]
    assert whole.curve == [
        (1, {"x": [[b]], "y": [[a]], "z": [[c]]}, [(2.0, 2), (3.0, 2), (5.0, 1)]),
        (2, {"x": [[a]], "y": [[b]], "z": [[c]]}, [(1.0, 2), (1.0, 2), (5.0, 1)]),
    ]


# --- what fits


def _long():
    """Two tasks of 8 x 8 cells. A grid is 1 + 71 tokens, three demonstrations and the question 1 + 7 x 72 + 1 = 506,
    one demonstration and the question 1 + 3 x 72 + 1 = 218; an answer may take 2 x 71 + 32 = 174 more."""
    grid = tuple(tuple((i * j) % 10 for j in range(8)) for i in range(8))
    pairs = tuple(Pair(grid, grid[::-1]) for _ in range(3))
    return [Task(name, pairs, (grid,)) for name in "ab"], {name: (grid[::-1],) for name in "ab"}


def test_dropping_long_prompts_asks_fewer_questions_than_shortening(tmp_path, arc_folder):
    tasks, solutions = made_tasks(2)
    long, answers = _long()
    both, truths = [*tasks, *long], solutions | answers
    (cut,), _ = arms_of(spec_of(arc_folder, both, context=400), both, truths, tmp_path / "cut")
    (dropped,), _ = arms_of(spec_of(arc_folder, both, context=400, too_long=DROP), both, truths, tmp_path / "dropped")
    assert (cut.questions, cut.skipped) == (8, 0)
    assert (dropped.questions, dropped.skipped) == (4, 4)
    assert cut.coverage == dropped.coverage and cut.coverage.questions_fit == 2
    assert dropped.attempts["a"] == dropped.attempts["b"] == ((),)
    assert [s.answered for s in dropped.scores][2:] == [0.0, 0.0] and len(dropped.scores) == 4
    assert score({}, truths)[2:] == list(dropped.scores[2:])  # wrong, and in the denominator


@pytest.mark.parametrize("context", [64, 180, 290])
def test_where_no_question_fits_it_is_one_line(tmp_path, arc_folder, context):
    """One demonstration and the question are 218 tokens, and 392 with those of the answer."""
    long, answers = _long()
    with pytest.raises(UserError, match=f"none of 2 tasks fits {context} tokens") as error:
        arms_of(spec_of(arc_folder, long, context=context), long, answers, tmp_path, "baseline")
    assert "\n" not in str(error.value) and "--context" in str(error.value)
    assert Store(tmp_path, kind=ROWS).rows() == {}


def test_an_arm_whose_memory_runs_out_in_decoding_has_the_same_row_and_says_so_once(tmp_path, arc_folder, monkeypatch):
    """In every task's questions, and in the points of the curve: what was learnt of the first serves the others."""
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, scope=TASK, views=4, curve=True)
    (expected,), _ = arms_of(spec, tasks, solutions, tmp_path / "one")
    whole, tries = decode.Queue.run, []

    def run(queue, *args):
        tries.append(len(queue.waiting))
        if min(len(queue.waiting), queue.room.rows(max(queue.totals.values()))) > 2:
            raise RuntimeError("CUDA error: out of memory")
        whole(queue, *args)

    monkeypatch.setattr(decode.Queue, "run", run)
    (row,), notes = arms_of(spec, tasks, solutions, tmp_path / "two")
    assert len(tries) > 3
    (sentence,) = row.notes
    assert sentence.startswith("memory ran out with 4 answers at once: going on with 2")
    assert notes.count(sentence) == 1
    assert timeless(replace(row, notes=())) == timeless(expected)


def test_rows_of_a_card_answer_only_where_its_environment_is_the_same(tmp_path, arc_folder, monkeypatch):
    tasks, solutions = made_tasks(2)
    spec, steps = spec_of(arc_folder, tasks, steps=2), []
    whole = TrainingStep.run
    monkeypatch.setattr(TrainingStep, "run", lambda *args: steps.append(1) or whole(*args))
    for environment, trained in (({"cuda": "13.0"}, True), ({"cuda": "13.0"}, False), ({"cuda": "12.6"}, True)):
        monkeypatch.setattr(InProcess, "report", replace(InProcess.report, environment=environment))
        steps.clear()
        (row,), _ = arms_of(spec, tasks, solutions, tmp_path)
        assert row.environment == environment and bool(steps) == trained
    assert len(Store(tmp_path, kind=ROWS).rows()) == 2


class Meter:
    """A CpuMeter of a machine where others use `others` cores; every reading is of ten seconds."""

    others = 0.0
    seconds = 10.0

    def __init__(self, own):
        pass

    def start(self):
        pass

    def read(self):
        return CpuLoad(self.others, 0.0)


def test_a_row_says_what_others_took_of_the_cores_in_all_its_parts(tmp_path, arc_folder, monkeypatch):
    """Stopped after five of eight steps on a busy machine, finished on a quiet one: five readings of nine."""
    monkeypatch.setattr(runner, "CpuMeter", Meter)
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    monkeypatch.setattr(Meter, "others", 90.0)
    Watched(spec, tasks, solutions, tmp_path / "a.pt", 0.0, 6)
    monkeypatch.setattr(Meter, "others", 0.0)
    outcome = Watched(spec, tasks, solutions, tmp_path / "a.pt", 0.0).outcome
    assert (outcome.watched_s, outcome.others_core_s) == (90.0, 5 * 900.0)
    assert outcome.cores_taken(cores()) == 50.0
    (quiet,), _ = arms_of(spec, tasks, solutions, tmp_path / "quiet")
    assert quiet.cores_taken == 0.0 and not quiet.slowed
    monkeypatch.setattr(Meter, "others", 90.0)
    (slow,), _ = arms_of(spec, tasks, solutions, tmp_path / "slow")
    assert slow.slowed and timeless(slow) == timeless(quiet)
