"""The worker of a run with a real small model: what it trains and answers, and that it keeps to its time."""

import json

import pytest
import torch
from helpers.solving import row_of
from helpers.tasks import made_tasks
from helpers.tuning import arms_of, spec_of

from harness.arc.task import Task
from harness.errors import UserError
from harness.records.arm import DFS, GREEDY, SAMPLE, SCORE, VOTE
from harness.records.solving import attempts_of, joined
from harness.records.stored import to_stored
from harness.solve import worker
from harness.solve.config import LoadJob, TaskJob
from harness.tune import grid_tokens, scoring

TASKS, SOLUTIONS = made_tasks(3)


@pytest.fixture
def events():
    return []


@pytest.fixture
def load(arc_folder, events):
    def with_tasks(tasks, **changes):
        job = LoadJob(spec_of(arc_folder, tasks, scope="task", **changes), tuple(tasks), "n-1", 0, 1)
        loaded = worker.load(json.loads(json.dumps(to_stored(job))), lambda name, **fields: None)
        assert loaded["load_s"] > 0

        def solve(task, attempt=1, *, views=2, step_s=0.0, train_s=600.0, decode_s=600.0, cap_s=600.0):
            def emit(name, **fields):
                events.append((name, json.loads(json.dumps(fields))))

            payload = to_stored(TaskJob(task, attempt, views, step_s, train_s, decode_s, cap_s))
            return json.loads(json.dumps(worker.solve(payload, emit)))

        return solve

    return with_tasks


def test_it_answers_what_a_fine_tune_with_one_adapter_per_task_answers(load, arc_folder, tmp_path):
    """The order of tasks does not matter: each one starts from the same adapter and the same random state."""
    spec = spec_of(arc_folder, TASKS, scope="task")
    (row,), _ = arms_of(spec, TASKS, SOLUTIONS, tmp_path)
    solve = load(TASKS)
    for task in reversed(TASKS):
        result = solve(task.id)
        assert result["status"] == "ok" and result["steps"] == spec.steps and not result["cut"]
        answers = tuple(tuple(grid for grid, _ in votes[:2]) for votes in result["votes"])
        assert answers == row.attempts[task.id]
        assert result["train_tokens"] > 0 and result["question_tokens"] > 0 and result["train_s"] > 0


def test_another_attempt_has_other_views_and_examples(load):
    solve = load(TASKS)
    first, again, second = solve("t0"), solve("t0"), solve("t0", attempt=2)
    assert first["votes"] == again["votes"] and first["train_tokens"] == again["train_tokens"]
    assert second["status"] == "ok" and second["question_tokens"] == first["question_tokens"]


def test_training_stops_when_its_time_is_over_and_the_task_is_answered_all_the_same(load):
    solve = load(TASKS)
    result = solve("t0", train_s=1e-6)
    assert result["steps"] == 1 and result["cut"] and result["status"] == "ok"
    # Where not even a step has time, none is begun.
    none = solve("t0", step_s=2.0, train_s=1.0)
    assert none["steps"] == 0 and none["cut"] and none["train_s"] == 0.0 and none["question_tokens"] > 0


def test_answering_stops_when_the_time_is_over(load):
    result = load(TASKS)("t0", cap_s=0.0)
    assert result["cut"] and result["status"] == "ok"


WAYS = [(GREEDY, SCORE), (SAMPLE, VOTE), (DFS, VOTE), (DFS, SCORE)]


@pytest.mark.parametrize(("decode", "select"), WAYS)
def test_other_ways_of_answering_give_what_a_fine_tune_by_them_gives(load, arc_folder, tmp_path, decode, select):
    spec = spec_of(arc_folder, TASKS, scope="task")
    (row,), _ = arms_of(spec, TASKS, SOLUTIONS, tmp_path, decode=decode, select=select)
    solve = load(TASKS, decode=decode, select=select)
    for task in TASKS:
        made = row_of(**solve(task.id))
        assert made.ok and not made.cut and attempts_of([made]) == row.attempts[task.id]
        shares = tuple(tuple(share for _, share in own[:2]) for own in joined([made]))
        assert shares == tuple(map(pytest.approx, row.confidence[task.id]))
        # Scores where there is something to choose from.
        several = any(len(votes) > 1 for votes in made.votes)
        assert bool(made.scores) == (several and select == SCORE) and (made.score_s > 0) == (select == SCORE)


def test_scores_that_are_cut_leave_the_votes(load, monkeypatch, events):
    """The time is over when scoring begins: the votes were told before it, and count."""
    solve = load(TASKS, decode=DFS, select=SCORE)
    whole, real = solve("t0"), worker.scored
    assert any(whole["scores"])
    events.clear()
    monkeypatch.setattr(worker, "scored", lambda *args, stop, **more: real(*args, stop=over(stop), **more))

    def over(stop):
        stop.at = 0.0
        return stop

    cut = solve("t0")
    assert cut["cut"] and cut["status"] == "ok" and cut["votes"] == whole["votes"] and cut["scores"] == []
    name, told = events[-1]
    assert name == "votes" and told["votes"] == whole["votes"]


@pytest.mark.parametrize("decode", [GREEDY, DFS])
def test_decoding_stops_when_its_time_is_over_and_what_there_is_is_scored(load, decode):
    result = load(TASKS, decode=decode, select=SCORE)("t0", decode_s=0.0)
    assert result["cut"] and result["status"] == "ok"


def test_memory_that_runs_out_while_scoring_keeps_the_votes(load, monkeypatch):
    solve = load(TASKS, decode=DFS, select=SCORE)
    whole = solve("t0")

    def too_much(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scoring, "_shared", too_much)
    result = solve("t0")
    assert result["status"] == "oom" and result["votes"] == whole["votes"] and result["scores"] == []
    monkeypatch.undo()
    assert solve("t0")["votes"] == whole["votes"]


def test_a_tokenizer_that_cannot_write_grids_alone_is_refused_at_loading(load, monkeypatch):
    monkeypatch.setattr(grid_tokens, "_texts", lambda tokenizer: {})
    with pytest.raises(UserError, match="try another --encoding"):
        load(TASKS, decode=DFS)


def test_fewer_views_are_asked_where_there_is_time_for_no_more(load):
    solve = load(TASKS)
    one, two = (solve("t0", views=views) for views in (1, 2))
    assert one["views"] == 1 and one["question_tokens"] < 0.6 * two["question_tokens"]


def test_a_task_with_one_demonstration_is_answered_untrained(load):
    lone = Task("lone", TASKS[0].demonstrations[:1], TASKS[0].test_inputs)
    result = load([lone, TASKS[1]])("lone")
    assert result["steps"] == 0 and result["status"] == "ok" and not result["cut"]


def test_a_task_that_does_not_fit_has_no_answer_and_is_no_failure(load):
    wide = tuple(tuple(range(10)) * 3 for _ in range(30))
    long = Task("long", TASKS[0].demonstrations, (wide,))
    result = load([long, TASKS[1]])("long")
    assert result["status"] == "ok" and result["votes"] in ([[]], []) and result["question_tokens"] == 0
