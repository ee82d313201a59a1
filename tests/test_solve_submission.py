"""Kaggle's submission, the rows that it is made of, and what a task takes."""

import json
import math
from dataclasses import replace

import pytest
from helpers.solving import row_of
from helpers.tasks import made_tasks

from harness.arc.prompt import PromptFormat
from harness.errors import UserError
from harness.predict.answering import DecodeSpeed
from harness.records import solving
from harness.records.cell import Recipe
from harness.solve import submission
from harness.solve.pace import Pace
from harness.solve.tokens import _OnePerCell, tokens_of

TASKS, _ = made_tasks(3)


def test_two_attempts_per_test_input_and_zeros_without_an_answer(tmp_path):
    path = tmp_path / "submission.json"
    submission.write(path, TASKS, {"t0": (("12\n34", "5"),), "t1": (("7",),)})
    raw = json.loads(path.read_text())
    assert raw["t0"] == [{"attempt_1": [[1, 2], [3, 4]], "attempt_2": [[5]]}]
    assert raw["t1"] == [{"attempt_1": [[7]], "attempt_2": [[7]]}]
    assert raw["t2"] == [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}]
    assert submission.faults(raw, TASKS) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda raw: raw.pop("t0"), "t0 is missing"),
        (lambda raw: raw.update(x=[]), "x is no task"),
        (lambda raw: raw["t0"].append(raw["t0"][0]), "t0 needs 1 answers"),
        (lambda raw: raw["t0"][0].pop("attempt_2"), "needs attempt_1 and attempt_2"),
        (lambda raw: raw["t0"][0].update(attempt_1=[[1, 2], [3]]), "no grid"),
        (lambda raw: raw["t0"][0].update(attempt_1=[[10]]), "no grid"),
        (lambda raw: raw["t0"][0].update(attempt_1=[]), "no grid"),
        (lambda raw: raw["t0"][0].update(attempt_1=[[True]]), "no grid"),
    ],
)
def test_what_kaggle_would_refuse_is_named(change, fault):
    raw = submission.submission_of(TASKS, {})
    change(raw)
    assert len(found := submission.faults(raw, TASKS)) == 1 and fault in found[0]


def test_an_answer_that_is_no_grid_is_none():
    assert submission.submission_of(TASKS[:1], {"t0": (("1\n23",),)})["t0"][0]["attempt_1"] == submission.UNANSWERED


def test_checking_the_place_leaves_a_file_of_before(tmp_path):
    path = tmp_path / "s.json"
    path.write_text("before")
    submission.check(path, TASKS)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(UserError, match="link"):
        submission.check(tmp_path / "link.json", TASKS)


def test_rows_come_back_and_others_are_refused():
    row = row_of(cut=True, reason="x")
    raw = json.loads(json.dumps(solving.to_json(row)))
    assert solving.from_json(raw) == row
    scored = row_of(scores=((-1.0, -2.5),), score_s=1.0)
    assert solving.from_json(json.loads(json.dumps(solving.to_json(scored)))) == scored
    bad_scores = [{"scores": scores} for scores in ([[-1.0]], [[1.0, 2.0]], [[], []], [[-1.0, None]])]
    others = {"status": "fine"}, {"key": "other"}, {"train_s": -1}, {"votes": [[["00", 0]]]}, {"attempt": 0}
    for change in (*bad_scores, *others):
        with pytest.raises(ValueError):
            solving.from_json({**raw, **change})


def test_attempts_join_their_votes():
    first, second = row_of(votes=((("1", 2), ("2", 1)),)), row_of(attempt=2, votes=((("2", 3),),))
    assert solving.attempts_of([first]) == (("1", "2"),)
    assert solving.attempts_of([first, second]) == (("2", "1"),)
    assert solving.all_attempts([second, first, row_of("t1", votes=())]) == {"t0": (("2", "1"),), "t1": ()}
    # Two of three views agreed; of both attempts four of six.
    assert solving.confidence([first]) == pytest.approx(2 / 3)
    assert solving.confidence([first, second]) == pytest.approx(4 / 6)
    # A test input without any answer is not sure at all.
    assert solving.confidence([row_of(votes=((("1", 3),), ()))]) == 0.0
    assert solving.confidence([]) == solving.confidence([row_of(votes=())]) == 0.0


def test_shares_are_of_the_views_by_votes_or_by_likelihood():
    # Two of four views gave one grid, one another, and one none.
    assert solving.shares([2, 1], (), 4) == pytest.approx([0.5, 0.25])
    # Depth first a view has several candidates: five of four views share all of them.
    assert solving.shares([3, 2], (), 4) == pytest.approx([0.6, 0.4])
    # By likelihood what three of four views have is shared as exp(-1) to exp(-2).
    e = math.exp(-1)
    assert solving.shares([2, 1], (-2.0, -1.0), 4) == pytest.approx([0.75 * e / (1 + e), 0.75 / (1 + e)])
    assert solving.shares([], (), 4) == []


def test_an_attempt_by_votes_and_one_by_likelihood_are_averaged_by_their_views():
    """Two views by vote, 1 to A; six by likelihood, half A and half B: A has (2 x 1 + 6 x 0.5) / 8."""
    vote = row_of(votes=((("1", 2),),), views=2)
    score = row_of(attempt=2, votes=((("2", 3), ("1", 3)),), scores=((-1.0, -1.0),), views=6)
    for rows in ([vote, score], [score, vote]):
        assert solving.joined(rows) == ((("1", pytest.approx(5 / 8)), ("2", pytest.approx(3 / 8))),)
    assert solving.confidence([vote, score]) == pytest.approx(5 / 8)
    # A likelier grid wins over one that more views gave, and a tie is the first one's.
    likely = row_of(votes=((("1", 5), ("2", 1)),), scores=((-3.0, -0.5),), views=6)
    assert solving.attempts_of([likely]) == (("2", "1"),)
    even = row_of(votes=((("1", 1), ("2", 1), ("3", 1)),), views=3)
    assert solving.attempts_of([even, replace(even, attempt=2)]) == (("1", "2"),)


def test_tokens_of_a_task_that_fits_and_of_one_that_does_not():
    prompts = PromptFormat(tokenizer=_OnePerCell(), encoding="rows", context=2000)
    counted = tokens_of(TASKS[0], prompts, "n-1")
    # 2 x 3 cells and two newlines a grid; three demonstrations and a test input; 388 for the words.
    assert counted.questions == (388 + 7 * 8,)
    assert counted.examples == (388 + 6 * 8 + 1,) * 3
    assert counted.answer == 9 and counted.unasked == 0
    none = tokens_of(TASKS[0], replace(prompts, context=300), "n-1")
    assert none.questions == none.examples == () and none.unasked == 1


def test_seconds_of_a_task_are_its_steps_and_its_answers():
    pace = Pace(
        recipe=Recipe(sequences_per_step=4),
        kind="cpu",
        sequence_s=lambda n: 0.001 * n,
        update_s=0.5,
        decoding=DecodeSpeed(read_s=0.0001, step_s=0.02, cached_s=0.0),
        rows=2,
        load_s=1.0,
        common_sigma=0.1,
    )
    tokens = tokens_of(TASKS[0], PromptFormat(tokenizer=_OnePerCell(), encoding="rows", context=2000), "n-1")
    parts = pace.parts(tokens, steps=10, views=3)
    assert parts.train_s == pytest.approx(10 * (4 * 0.437 + 0.5))
    # Two of the three questions at a time share the step of a token.
    # That reads four tokens of a row, of which two and a half become the answer's.
    assert parts.answer_s == pytest.approx(3 * (0.0001 * 444 + 0.4 * 9 * (0.01 + 4 * 0.0001)))
    faster = replace(pace, train_factor=0.5, answer_factor=2.0).parts(tokens, steps=10, views=3)
    assert faster.train_s == pytest.approx(parts.train_s / 2) and faster.answer_s == pytest.approx(2 * parts.answer_s)
    assert pace.parts(replace(tokens, examples=()), 10, 3).train_s == 0.0
