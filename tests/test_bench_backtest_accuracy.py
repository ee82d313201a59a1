"""Projected accuracies against the committed curves of whole trainings."""

from pathlib import Path
from statistics import fmean

from bench import backtest_accuracy as backtest
from harness.analysis.learning_curve import MAX_REACH, MIN_CHECKPOINTS

CURVES = backtest.read(Path(__file__).parents[1] / backtest.FILE)


def test_the_intervals_hold_what_was_measured():
    made = [p for curve in CURVES for p in backtest.projections(curve)]
    tried = [p for p in made if not p.refused]
    assert len(CURVES) >= 9 and len(tried) >= 30
    assert fmean(p.held for p in tried) >= 0.9
    assert {p.reach for p in made} == {2, 4, 8} and max(p.reach for p in made) <= MAX_REACH


def test_a_projection_knows_its_beginning_alone():
    curve = CURVES[0]
    first = next(backtest.projections(curve))
    assert first.start is curve.points[MIN_CHECKPOINTS - 1]
    # Whatever comes after the beginning changes what is compared, and not what is projected.
    cut = backtest.Curve(curve.set, curve.arm, curve.seed, curve.points[: MIN_CHECKPOINTS + 1])
    again = next(backtest.projections(cut))
    assert (again.low, again.high, again.refused) == (first.low, first.high, first.refused) or first.refused
    assert again.truth == fmean(curve.points[MIN_CHECKPOINTS].scores)


def test_curves_are_read_as_they_were_written(tmp_path):
    for curve in CURVES[:2]:
        backtest.write(curve, tmp_path / "curves.jsonl")
    assert backtest.read(tmp_path / "curves.jsonl") == CURVES[:2]
