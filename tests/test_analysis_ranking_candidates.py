"""Speed and accuracy under one budget, by hand, in the numbers of helpers/ranking.py."""

from dataclasses import replace

import pytest
from helpers.ranking import FULL_SLOW, FULL_STEP_S, GOAL, SLOW, STEP_S
from helpers.ranking import result_of as _result
from helpers.ranking import row_of as _row
from helpers.ranking import shown as _shown
from helpers.records import cell, curve, result, row

from harness.analysis.candidates import best_arm, candidates, comparable_results
from harness.analysis.learning_curve import accuracy_after
from harness.analysis.ranking import rank_candidates
from harness.analysis.stats import wilson
from harness.catalog.published import ACCURACIES
from harness.records.arm import CurvePoint
from harness.report import frame


def _names(listed):
    return [c.row.cell.model.name for c in listed]


# --- hours


def test_hours_are_load_training_and_answers_by_hand():
    """Load 1799 s and warm-up 1 s: 0.5 h. 25 steps for 10 tasks are 1000 for 400: 2.982 h, 3.543 at the slow end. Ten
    tasks decoded in 90 s are 9 s per task, 1 h for 400, and 8.82 % more at the slow end. In all up to 5.131."""
    r, accuracy = _row(load_s=1799.0), result(5, steps=25, decode_s=90.0)
    (candidate,) = candidates([r], [accuracy], GOAL)
    run = candidate.run
    assert (run.run.scope, run.run.steps, run.run.dose, run.evidence) == ("shared", 1000, 40.0, "measured")
    assert run.answers.mid == pytest.approx(1.0)
    assert run.mid == pytest.approx(0.5 + 1000 * STEP_S / 3600 + 1.0)
    high = 0.5 + 1000 * STEP_S / 3600 * SLOW + 1.0 * FULL_SLOW
    assert candidate.hours_high == pytest.approx(high) == pytest.approx(5.131, abs=1e-3)
    (unanswered,) = candidates([r], [], GOAL)
    assert unanswered.run.answers is None and unanswered.run.evidence == "none"
    assert unanswered.hours_high == pytest.approx(0.5 + 1000 * STEP_S / 3600 * SLOW)
    (fewer,) = candidates([r], [accuracy], replace(GOAL, test_tasks=40))
    assert (fewer.run.run.steps, fewer.run.run.dose) == (100, 40.0)
    assert fewer.run.answers.mid == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("short", "why"),
    [({"context": 300}, "none of ARC's sequences is so short"), ({"work": None}, "no FLOPs were counted")],
)
def test_hours_are_of_full_contexts_where_none_of_arcs_lengths_serves(short, why):
    """Answers are 1 h, up to 1.088; full contexts 4.444 h and 8.82 % more at the slow end; it is said."""
    accuracy = result(5, steps=25, decode_s=90.0, context=short.get("context", 1024))
    (full,) = candidates([_row(**short)], [accuracy], GOAL)
    assert not full.run.arc and full.run.answers.mid == pytest.approx(1.0)
    assert full.hours_high == pytest.approx((1 + 1000 * FULL_STEP_S * FULL_SLOW) / 3600 + FULL_SLOW)
    shown = " ".join(_shown(rank_candidates([full], GOAL)).split())
    assert f"tiny fp32 {full.row.cell.context}: hours are of full contexts, for {why}." in shown
    assert "full contexts" not in _shown(rank_candidates(candidates([_row()], [], GOAL), GOAL))


def test_the_curve_is_of_all_rows_of_the_cells_model_precision_and_recipe():
    """Three contexts in proportion to tokens leave no misfit and need no 10 % for a curve of one. Up to 2048 the mean
    length is (0.27 x 687 + 0.23 x 1165 + 0.24 x 1677) / 0.74 = 1156.6 tokens."""
    rows = [_row(seconds=n / 1024, context=n) for n in (1024, 2048, 4096)]
    second = candidates([*rows, _row("other", 99.0), _row(precision="int4", seconds=50.0)], [], GOAL)[1]
    mid = 1000 * 16 * 1156.6 / 1024 / 3600
    assert second.run.mid == pytest.approx(mid, rel=0.002)
    assert second.hours_high == pytest.approx(mid * FULL_SLOW, rel=0.002)


def test_the_answers_count_in_the_budget():
    """5.131 h with the answers may take the whole budget; 4.043 without them 80 % of it, which is all of 5.054 h."""
    r, accuracy = _row(load_s=1799.0), result(5, steps=25, decode_s=90.0)
    for budget, fits, bare in ((5.14, 1, 1), (5.12, 0, 1), (5.06, 0, 1), (5.05, 0, 0)):
        goal = replace(GOAL, budget_hours=budget)
        assert len(rank_candidates(candidates([r], [accuracy], goal), goal).fits) == fits
        assert len(rank_candidates(candidates([r], [], goal), goal).fits) == bare


def test_the_steps_that_a_budget_allows_by_hand():
    """3 h less 0.5 of load and up to 1.0882 of answers leave 1.4118 h, 5082.5 s, of steps of 10.734 x 1.1882 s at the
    slow end: 398."""
    goal, accuracy = replace(GOAL, budget_hours=3.0), result(5, steps=25, decode_s=90.0)
    (candidate,) = candidates([_row(load_s=1799.0)], [accuracy], goal)
    assert candidate.bought.run.steps == int(3600 * (2.5 - FULL_SLOW) / (STEP_S * SLOW)) == 398
    (plenty,) = candidates([_row(load_s=1799.0)], [accuracy], GOAL)
    assert plenty.bought.run.steps == 1000  # at most those that are asked for
    (none,) = candidates([_row(load_s=1799.0)], [accuracy], replace(GOAL, budget_hours=1.0))
    assert none.bought.run.steps == 0 and none.estimate is None


def test_the_projection_is_to_the_steps_that_the_budget_allows():
    """80 % of 1.5 h hold 338 steps. For the 20 tasks of the curve they are its own steps, 5.3 times as many; for 400
    tasks they give each a twentieth of the sequences, as 17 steps did for 20."""
    accuracy = result(11, tasks=20, steps=64, curve_points=curve(20, 2, 5, 8, 11))
    for tasks, steps in ((20, 338), (400, 17)):
        (candidate,) = candidates([_row()], [accuracy], replace(GOAL, budget_hours=1.5, test_tasks=tasks))
        assert candidate.bought.run.steps == int((1.2 * 3600 - 1) / (STEP_S * SLOW)) == 338
        assert candidate.estimate == accuracy_after(accuracy.curve_points, steps, candidate.noise.accuracy)
        assert candidate.estimate.reach == steps / 64


# --- which result belongs to which row


def test_a_result_is_of_its_model_precision_and_weights_alone():
    rows = [
        _row(),
        _row(context=2048),
        _row(precision="int4"),
        _row(weights="/a/folder"),
        _row("other"),
    ]
    listed = candidates(rows, [_result(right=5)], GOAL)
    assert [c.result is not None for c in listed] == [True, False, False, False, False]
    assert listed[1].unmatched == "the accuracy of n-1 is of another run: context 1024, here 2048"
    for c in listed[1:]:
        assert (c.result, c.baseline, c.estimate, c.chance, c.run.evidence) == (None, None, None, None, "none")


def test_nothing_without_a_result_is_given_an_accuracy():
    """In no table and no column: not from another precision, other weights, what was published, or the sizes."""
    rows = [_row(name) for name in (*ACCURACIES, "tiny")] + [_row("phi-3-mini", precision="int4")]
    results = [
        _result(right=5, decode_s=9.0, curve_points=curve(10, 2, 3, 4, 5)),
        _result("phi-3-mini", right=9, weights="/elsewhere"),
    ]
    chosen = rank_candidates(candidates(rows, results, GOAL), GOAL)
    (first, *others) = chosen.fits
    assert _names([first]) == ["tiny"] and len(others) == 4
    for c in others:
        assert (c.result, c.baseline, c.estimate, c.chance) == (None,) * 4
    shown = _shown(chosen)
    assert shown.count("not measured") == 4 + 3  # in the table, and a line for each model
    columns = [name for name in frame.COLUMNS if "accuracy" in name or "projected" in name]
    columns += ["answer_loss", "grid_nll", "chance_of_best", "projection_refused", "inference_hours"]
    for flat in frame.summary_frame(rows, GOAL, results):
        blank = {name for name in columns if flat[name] is None}
        if flat["model"] == "tiny":
            assert blank == {"accuracy_baseline", "chance_of_best", *(n for n in blank if "proj" in n)}
        else:
            assert blank == set(columns)


def test_a_failed_row_is_no_candidate():
    rows = [_row(), row(status="oom", cell=cell(context=4096)), row(status="too_slow", cell=cell(context=8192))]
    assert len(candidates(rows, [result(5)], GOAL)) == 1


def test_of_several_exams_the_one_that_most_were_asked_counts():
    """One task set asked of two models beats another asked of one, however new; of two alike the newer one counts."""
    a, b = _result("a", 5), _result("b", 6)
    new = _result("a", 9, dataset="other", started="2026-01-01T00:00:00+00:00")
    assert comparable_results([a, new, b]) == [a, b]
    assert comparable_results([a, new]) == [new]
    assert comparable_results([]) == []
    (candidate,) = candidates([_row("a")], [a, new, b], GOAL)
    assert candidate.result == a
    fewer = replace(new.spec, tasks=new.spec.tasks[:3], dataset="made")
    assert len(comparable_results([a, b, replace(new, spec=fewer)])) == 2  # other tasks of one set are not comparable


def test_the_best_arm_has_most_steps_then_the_highest_accuracy_then_a_curve_then_the_lowest_loss():
    base, few, low = result(9, steps=0, arm="baseline"), result(9, steps=8), result(4, arm="+ geometric")
    high = result(6, arm="n-2", answer_losses=((0.7, 12),) * 10)
    surer = replace(high, arm="+ color swap", answer_losses=((0.6, 12),) * 10)
    assert best_arm([base, few, low, high]) == high
    assert best_arm([high, surer, low]) == surer
    watched = replace(high, curve_points=curve(20, 2, 5, 8, 11))
    assert best_arm([surer, watched, high]) == watched  # what can be projected comes before what was surer
    (candidate,) = candidates([_row()], [base, low, high], GOAL)
    assert (candidate.result, candidate.baseline) == (high, base)


# --- intervals


@pytest.mark.parametrize("right", [0, 3, 10, 20])
@pytest.mark.parametrize("steps", [65, 128, 512])
def test_a_projection_is_never_surer_than_the_tasks_are_many(right, steps):
    """All tasks alike at all checkpoints have no spread of their own: 0 of 20 still leaves up to 16 % (Wilson)."""
    estimate = accuracy_after(curve(20, right, right, right, right), steps)
    low, high = wilson(right, 20)
    assert estimate.mid == pytest.approx(right / 20)
    assert estimate.low <= low + 1e-9 and estimate.high >= high - 1e-9
    assert estimate.high - estimate.low > 0.15


def test_a_loss_that_is_no_number_is_no_ground_for_a_projection():
    for at in range(4):
        seen = [replace(c, loss=float("nan")) if i == at else c for i, c in enumerate(curve(20, 2, 5, 8, 11))]
        assert accuracy_after(seen, 128).refused
    assert accuracy_after([replace(c, loss=float("inf")) for c in curve(20, 2, 5, 8, 11)], 128).refused


def test_the_estimate_of_random_curves_holds_wilsons_interval():
    import random

    rng = random.Random(5)
    for _ in range(20):
        tasks = rng.randint(3, 60)
        seen = [
            CurvePoint(4 * 2**i, 2.0 - i / 10, tuple(float(rng.random() < 0.5) for _ in range(tasks))) for i in range(5)
        ]
        estimate = accuracy_after(seen, rng.randint(65, 500), seed=1)
        low, high = wilson(estimate.mid * tasks, tasks)
        assert 0 <= estimate.low <= low <= estimate.mid <= high <= estimate.high <= 1
