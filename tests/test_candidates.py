"""Speed and accuracy under one budget, by hand.

A row of conftest is 16 micro-steps of a second a step, loaded in no time, with a second of warm-up: 1000 steps are
16000 s, 4.444 h, and 1.96 x 4.5 % more at the slow end, 4.836 h.
"""

from dataclasses import replace

import pytest
from choosing import GOAL, SLOW
from choosing import result_of as _result
from choosing import row_of as _row
from choosing import shown as _shown
from conftest import cell, curve, result, row

from harness.catalog.published import ACCURACIES
from harness.forecast.candidates import best_arm, candidates, choose, same_exam
from harness.forecast.estimate import Checkpoint, accuracy_after
from harness.forecast.proportions import wilson
from harness.report import frame


def _names(found):
    return [c.row.cell.model.name for c in found]


# --- hours


def test_hours_are_load_training_and_answers_by_hand():
    """Load 1799 s and warm-up 1 s: 0.5 h. Training 4.444 h, 4.836 at the slow end. Ten tasks decoded in 90 s are 9 s a
    task, 1 h for 400. In all 5.944 h, 6.336 at the slow end."""
    r = _row(load_s=1799.0)
    (found,) = candidates([r], [result(5, decode_s=90.0)], GOAL)
    assert found.inference_h == pytest.approx(1.0)
    assert found.hours_mid == pytest.approx(0.5 + 16000 / 3600 + 1.0)
    assert found.hours_high == pytest.approx(0.5 + 16000 / 3600 * SLOW + 1.0)
    (unanswered,) = candidates([r], [], GOAL)
    assert unanswered.inference_h is None
    assert unanswered.hours_high == pytest.approx(0.5 + 16000 / 3600 * SLOW)
    (fewer,) = candidates([r], [result(5, decode_s=90.0)], replace(GOAL, test_tasks=40))
    assert fewer.inference_h == pytest.approx(0.1)


def test_the_answers_count_in_the_budget():
    """6.336 h with the answers, 5.336 without: at 6 h only the row whose decoding nobody measured fits."""
    r, told = _row(load_s=1799.0), result(5, decode_s=90.0)
    for budget, fits, bare in ((6.34, 1, 1), (6.33, 0, 1), (5.34, 0, 1), (5.33, 0, 0)):
        goal = replace(GOAL, budget_hours=budget)
        assert len(choose(candidates([r], [told], goal), goal).fits) == fits
        assert len(choose(candidates([r], [], goal), goal).fits) == bare


def test_the_steps_that_a_budget_allows_by_hand():
    """3 h less 0.5 of load and 1 of answers leave 1.5 h, 5400 s, of steps of 16 x 1.0882 s at the slow end: 310."""
    goal = replace(GOAL, budget_hours=3.0)
    (found,) = candidates([_row(load_s=1799.0)], [result(5, decode_s=90.0)], goal)
    assert found.steps == int(5400 / (16 * SLOW)) == 310
    (plenty,) = candidates([_row(load_s=1799.0)], [result(5, decode_s=90.0)], GOAL)
    assert plenty.steps == 1000  # at most those that are asked for
    (none,) = candidates([_row(load_s=1799.0)], [result(5, decode_s=90.0)], replace(GOAL, budget_hours=1.0))
    assert none.steps == 0 and none.estimate is None


def test_the_projection_is_to_the_steps_that_the_budget_allows():
    told = result(11, tasks=20, steps=64, checkpoints=curve(20, 2, 5, 8, 11))
    (found,) = candidates([_row()], [told], replace(GOAL, budget_hours=1.5))
    assert found.steps == int((1.5 * 3600 - 1) / (16 * SLOW)) == 310
    assert found.estimate == accuracy_after(told.checkpoints, 310)
    assert found.estimate.reach == 310 / 64


# --- which result belongs to which row


def test_a_result_is_of_its_model_precision_and_weights_alone():
    rows = [
        _row(),
        _row(context=2048),
        _row(precision="int4"),
        _row(weights="/a/folder"),
        _row("other"),
    ]
    found = candidates(rows, [_result(right=5)], GOAL)
    assert [c.result is not None for c in found] == [True, True, False, False, False]
    for c in found[2:]:
        assert (c.result, c.baseline, c.estimate, c.chance, c.inference_h) == (None,) * 5


def test_nothing_without_a_result_is_given_an_accuracy():
    """In no table and no column: not from another precision, other weights, what was published, or the sizes."""
    rows = [_row(name) for name in (*ACCURACIES, "tiny")] + [_row("phi-3-mini", precision="int4")]
    told = [_result(right=5, checkpoints=curve(10, 2, 3, 4, 5)), _result("phi-3-mini", right=9, weights="/elsewhere")]
    chosen = choose(candidates(rows, told, GOAL), GOAL)
    (first, *others) = chosen.fits
    assert _names([first]) == ["tiny"] and len(others) == 4
    for c in others:
        assert (c.result, c.baseline, c.estimate, c.chance) == (None,) * 4
    shown = _shown(chosen)
    assert shown.count("not measured") == 4 + 3  # in the table, and a line for each model
    columns = [name for name in frame.COLUMNS if "accuracy" in name or "projected" in name]
    columns += ["answer_loss", "grid_nll", "chance_of_best", "projection_refused", "inference_hours"]
    for flat in frame.table(rows, GOAL, told):
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
    new = _result("a", 9, source="other", started="2026-01-01T00:00:00+00:00")
    assert same_exam([a, new, b]) == [a, b]
    assert same_exam([a, new]) == [new]
    assert same_exam([]) == []
    (found,) = candidates([_row("a")], [a, new, b], GOAL)
    assert found.result == a
    fewer = replace(new.trial, tasks=new.trial.tasks[:3], source="made")
    assert len(same_exam([a, b, replace(new, trial=fewer)])) == 2  # other tasks of one set are another exam


def test_the_best_arm_has_most_steps_then_the_highest_accuracy_then_a_curve_then_the_lowest_loss():
    base, few, low = result(9, steps=0, arm="baseline"), result(9, steps=8), result(4, arm="+ geometric")
    high = result(6, arm="n-2", answer_losses=((0.7, 12),) * 10)
    surer = replace(high, arm="+ color swap", answer_losses=((0.6, 12),) * 10)
    assert best_arm([base, few, low, high]) == high
    assert best_arm([high, surer, low]) == surer
    watched = replace(high, checkpoints=curve(20, 2, 5, 8, 11))
    assert best_arm([surer, watched, high]) == watched  # what can be projected comes before what was surer
    (found,) = candidates([_row()], [base, low, high], GOAL)
    assert (found.result, found.baseline) == (high, base)


# --- which comes first


def _two(checkpoints=True):
    """A rises by 3 of 20 tasks a doubling, from 8 steps to 64, where 11 are right; B stays at 12 right."""
    seen = {"a": curve(20, 2, 5, 8, 11), "b": curve(20, 12, 12, 12, 12)} if checkpoints else {"a": (), "b": ()}
    return [
        _result("a", 11, tasks=20, checkpoints=seen["a"]),
        _result("b", 12, tasks=20, checkpoints=seen["b"]),
    ]


def test_ranked_by_projected_accuracy_where_all_have_one():
    """At 256 steps A is projected to more than 12 of 20, so it goes before B; by what was measured B is better."""
    goal = replace(GOAL, steps=256)
    rows = [_row("b"), _row("a")]
    chosen = choose(candidates(rows, _two(), goal), goal)
    assert [round(c.estimate.mid, 2) for c in chosen.fits][1] == 0.6
    assert chosen.fits[0].estimate.mid > 0.65
    assert _names(chosen.fits) == ["a", "b"]
    assert chosen.why.startswith("Pick: a fp32 at 1024 tokens: the highest projected accuracy of 2, ")
    assert f"{100 * chosen.fits[0].estimate.mid:.1f} %" in chosen.why


@pytest.mark.parametrize(
    ("goal", "more"),
    [
        (replace(GOAL, steps=256), [_result("c", 3, tasks=20)]),  # C has no checkpoints
        (replace(GOAL, steps=1000), []),  # 15 times beyond the last checkpoint
        (replace(GOAL, steps=256), "none"),
    ],
)
def test_ranked_by_measured_accuracy_where_one_has_no_projection(goal, more):
    told = _two(checkpoints=False) if more == "none" else [*_two(), *more]
    rows = [_row("a"), _row("b"), *([_row("c")] if more and more != "none" else [])]
    chosen = choose(candidates(rows, told, goal), goal)
    assert _names(chosen.fits) == ["b", "a", "c"][: len(rows)]
    assert f"the highest measured accuracy of {len(rows)}, 60.0 %" in chosen.why


def test_those_without_an_accuracy_come_after_the_largest_first():
    rows = [_row("small", params=10), _row("known", params=5), _row("large", params=20), _row("worst", params=30)]
    chosen = choose(candidates(rows, [_result("known", 2), _result("worst", 0)], GOAL), GOAL)
    assert _names(chosen.fits) == ["known", "worst", "large", "small"]
    assert "the highest measured accuracy of 2, 20.0 %" in chosen.why


def test_one_cell_a_model_and_precision_the_longest_context_that_fits():
    rows = [_row(context=1024), _row(context=4096, seconds=3.0), _row(context=2048, seconds=2.0)]
    chosen = choose(candidates(rows, [result(5)], GOAL), GOAL)
    assert [c.row.cell.context for c in chosen.fits] == [2048]
    assert [c.row.cell.context for c in chosen.too_slow] == [4096]


def test_a_longer_context_of_other_weights_does_not_hide_a_measured_accuracy():
    """Profiled at random first and with its weights later: only the latter row has the accuracy, and it stays."""
    rows = [_row(context=2048), _row(context=1024, weights="/a")]
    chosen = choose(candidates(rows, [result(5, weights="/a")], GOAL), GOAL)
    assert [c.row.cell.weights for c in chosen.fits] == ["/a", "random"]
    assert "a measured accuracy, 50.0 %" in chosen.why


def test_two_weights_of_one_model_are_two_candidates():
    rows = [_row(weights="/a"), _row(weights="/b")]
    found = candidates(rows, [result(9, weights="/a"), result(2, weights="/b")], GOAL)
    assert found[0].chance > 0.9 and found[1].chance < 0.1
    assert [c.row.cell.weights for c in choose(found, GOAL).fits] == ["/a", "/b"]


def test_too_slow_ones_are_listed_the_nearest_first_and_never_picked():
    rows = [_row("slowest", 9.0), _row("slow", 3.0), _row("quick", 1.0)]
    chosen = choose(candidates(rows, [_result("slow", 10), _result("slowest", 10), _result("quick", 1)], GOAL), GOAL)
    assert _names(chosen.fits) == ["quick"]
    assert _names(chosen.too_slow) == ["slow", "slowest"]
    assert "Pick: quick fp32" in chosen.why and "the only one with a measured accuracy, 10.0 %" in chosen.why
    shown = [line.split() for line in _shown(chosen).splitlines()]
    assert [line[4] for line in shown if line and line[0] in ("quick", "slow", "slowest")] == ["yes", "no", "no"]


def test_none_that_fits_names_the_nearest_and_what_would_fit():
    """10 s a micro-step: 1000 steps take up to 48.37 h. 12 h hold 248 of them."""
    goal = replace(GOAL, budget_hours=12.0)
    rows = [_row("near", 10.0, warmup_micro_s=(0.0,)), _row("far", 20.0)]
    chosen = choose(candidates(rows, [], goal), goal)
    assert chosen.fits == () and len(chosen.too_slow) == 2
    assert chosen.why.startswith("Pick: none fits 12 h. Nearest: near fp32 at 1024 tokens")
    assert "take up to 48.4 h; 248 steps would fit." in chosen.why
    empty = choose([], GOAL)
    assert (empty.fits, empty.too_slow, empty.why) == ((), (), "Pick: none: no cell was measured.")


def test_a_tie_is_admitted():
    """12 and 11 of 20 right, one task apart: exact McNemar's p is 1. 18 against 2 of 20, 16 apart: 2 / 2**16."""
    rows = [_row("a"), _row("b"), _row("c")]
    told = [_result("a", 12, tasks=20), _result("b", 11, tasks=20), _result("c", 2, tasks=20)]
    chosen = choose(candidates(rows, told, GOAL), GOAL)
    assert _names(chosen.tied) == ["b"]
    assert "Not told apart from b fp32 on these tasks (p >= 0.05): a tie; more --tasks would tell." in chosen.why
    clear = choose(candidates(rows, [_result("a", 18, tasks=20), told[2]], GOAL), GOAL)
    assert clear.tied == () and "tie" not in clear.why


def test_without_any_accuracy_the_pick_is_by_speed_and_says_so():
    chosen = choose(candidates([_row("small", params=1), _row("large", params=2)], [], GOAL), GOAL)
    assert chosen.why.startswith("Best candidate: large")
    assert chosen.why.endswith("No accuracy was measured: it may not be the best.")
    assert chosen.tied == ()


def test_a_model_whose_losses_are_no_numbers_is_not_picked():
    """`bench` calls it unstable: a pick by speed must not take it, and its sentence must not deny what is listed."""
    bad = _row("bad", params=9, losses=(2.0, float("nan")))
    chosen = choose(candidates([bad], [], GOAL), GOAL)
    assert chosen.fits == ()
    chosen = choose(candidates([bad, _row("good", params=1)], [], GOAL), GOAL)
    assert _names(chosen.fits) == ["good"]


def test_chances_are_over_those_with_an_accuracy():
    rows = [_row("a"), _row("b"), _row("c"), _row("a", context=2048)]
    found = candidates(rows, [_result("a", 8), _result("b", 3)], GOAL)
    chances = [c.chance for c in found]
    assert chances[0] == chances[3] > 0.95 and chances[2] is None
    assert chances[0] + chances[1] == pytest.approx(1.0)
    (alone,) = candidates(rows[:1], [_result("a", 8)], GOAL)
    assert alone.chance is None  # of one there is nothing to compare


# --- intervals


@pytest.mark.parametrize("right", [0, 3, 10, 20])
@pytest.mark.parametrize("steps", [65, 128, 512])
def test_a_projection_is_never_surer_than_the_tasks_are_many(right, steps):
    """All tasks alike at all checkpoints have no spread of their own: 0 of 20 still leaves up to 16 % (Wilson)."""
    found = accuracy_after(curve(20, right, right, right, right), steps)
    low, high = wilson(right, 20)
    assert found.mid == pytest.approx(right / 20)
    assert found.low <= low + 1e-9 and found.high >= high - 1e-9
    assert found.high - found.low > 0.15


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
            Checkpoint(4 * 2**i, 2.0 - i / 10, tuple(float(rng.random() < 0.5) for _ in range(tasks))) for i in range(5)
        ]
        found = accuracy_after(seen, rng.randint(65, 500), seed=1)
        low, high = wilson(found.mid * tasks, tasks)
        assert 0 <= found.low <= low <= found.mid <= high <= found.high <= 1
