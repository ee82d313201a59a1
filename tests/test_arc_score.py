"""The vote over views, and what counts as solved."""

import pytest

from harness.arc import score
from harness.records.arm import TaskScore


def test_the_vote():
    a, b, c = ((1,),), ((2,),), ((3,),)
    assert score.vote([a, b, b, None, c]) == (b, a)
    assert score.vote([None, None]) == ()
    assert score.vote([]) == ()


def test_scores_by_hand():
    """Two test inputs. The first: views answer right, wrong shape, nothing: one vote each, so both are attempts. The
    second: a grid with 1 of 2 cells right. So one of two is right: attempts 0.5, views (1/3 + 0) / 2, cells
    (1 + 0.5) / 2."""
    truth = (((1, 2),), ((3, 4),))
    scored = score.score_task("t", [[((1, 2),), ((1,),), None], [((3, 9),)]], truth)
    assert scored == TaskScore("t", 0.5, 1 / 6, 0.75, 1.0, 1.0)
    assert not scored.solved


def test_unanswered_tasks_stay_in_the_denominator():
    truths = {"a": (((1,),),), "b": (((1,),), ((2,),))}
    scored = score.score({"b": [[((1,),)]]}, truths)
    assert [s.attempts for s in scored] == [0.0, 0.5]
    assert scored[0].answered == 0.0
    with pytest.raises(ValueError, match="2 test inputs"):
        score.score_task("a", [[], []], truths["a"])
