"""Which candidate is picked, and what is said where none fits: by hand, in the numbers of helpers/ranking.py."""

import io
from dataclasses import replace

import pytest
from helpers.ranking import GOAL, spec
from helpers.ranking import result_of as _result
from helpers.ranking import row_of as _row
from helpers.ranking import shown as _shown
from helpers.records import curve, result
from rich.console import Console

from harness.analysis.candidates import candidates
from harness.analysis.ranking import rank_candidates
from harness.records.cell import REFERENCE, Recipe
from harness.report import terminal


def _names(ranking):
    return [c.row.cell.model.name for c in ranking]


def _two(curve_points=True):
    """A rises by 3 of 20 tasks a doubling, from 8 steps to 64, where 11 are right; B stays at 12 right."""
    seen = {"a": curve(20, 2, 5, 8, 11), "b": curve(20, 12, 12, 12, 12)} if curve_points else {"a": (), "b": ()}
    return [
        _result("a", 11, tasks=20, curve_points=seen["a"]),
        _result("b", 12, tasks=20, curve_points=seen["b"]),
    ]


def test_ranked_by_projected_accuracy_where_all_have_one():
    """At 256 steps A is projected to more than 12 of 20, so it goes before B; by what was measured B is better. The
    budget is for as many tasks as were measured, so that steps are steps; the hours are of the 256."""
    goal = replace(GOAL, steps=256, test_tasks=20)
    rows = [_row("b"), _row("a")]
    chosen = rank_candidates(candidates(rows, _two(), goal), goal)
    assert [round(c.estimate.mid, 2) for c in chosen.fits][1] == 0.6
    assert chosen.fits[0].estimate.mid > 0.65
    assert _names(chosen.fits) == ["a", "b"]
    assert chosen.why.startswith("Pick: a fp32 at 1024 tokens: the highest projected accuracy of 2, ")
    assert f"{100 * chosen.fits[0].estimate.mid:.1f} %" in chosen.why
    assert "load and 256 steps for all 20 tasks take up to 0.907 h of 12, answers not counted." in chosen.why


@pytest.mark.parametrize(
    ("goal", "more"),
    [
        (replace(GOAL, steps=256, test_tasks=20), [_result("c", 3, tasks=20)]),  # C has no checkpoints
        (replace(GOAL, steps=1000, test_tasks=20), []),  # 15 times beyond the last checkpoint
        (replace(GOAL, steps=256, test_tasks=20), "none"),
        (replace(GOAL, steps=256), []),  # for 400 tasks they are fewer sequences per task than were measured,
    ],
)
def test_ranked_by_measured_accuracy_where_one_has_no_projection(goal, more):
    results = _two(curve_points=False) if more == "none" else [*_two(), *more]
    rows = [_row("a"), _row("b"), *([_row("c")] if more and more != "none" else [])]
    chosen = rank_candidates(candidates(rows, results, goal), goal)
    assert _names(chosen.fits) == ["b", "a", "c"][: len(rows)]
    assert f"the highest measured accuracy of {len(rows)}, 60.0 %" in chosen.why


def test_those_without_an_accuracy_come_after_the_largest_first():
    rows = [_row("small", params=10), _row("known", params=5), _row("large", params=20), _row("worst", params=30)]
    chosen = rank_candidates(candidates(rows, [_result("known", 2), _result("worst", 0)], GOAL), GOAL)
    assert _names(chosen.fits) == ["known", "worst", "large", "small"]
    assert "the highest measured accuracy of 2, 20.0 %" in chosen.why


def test_one_cell_a_model_and_precision_the_longest_context_that_fits():
    """A second per 512 tokens, 80 % of 14 h.

    Up to 2048 the mean of 1156.6 tokens takes 2.26 s, 1000 steps 10.0 h and 10.9 at the
    slow end; up to 4096 that of 1536 takes 3.00 s, 13.3 h. Of full contexts even 2048 tokens would take 17.8 h."""
    rows = [_row(context=n, seconds=n / 512) for n in (1024, 4096, 2048)]
    goal = replace(GOAL, budget_hours=14)
    chosen = rank_candidates(candidates(rows, [], goal), goal)
    assert [c.row.cell.context for c in chosen.fits] == [2048]
    assert [c.row.cell.context for c in chosen.too_slow] == [4096]
    assert chosen.fits[0].hours_high == pytest.approx(10.9, abs=0.1)
    assert chosen.too_slow[0].run.mid == pytest.approx(13.3, abs=0.1)


def test_a_longer_context_of_other_weights_does_not_hide_a_measured_accuracy():
    """Profiled at random first and with its weights later: only the latter row has the accuracy, and it stays."""
    rows = [_row(context=2048), _row(context=1024, weights="/a")]
    chosen = rank_candidates(candidates(rows, [result(5, weights="/a")], GOAL), GOAL)
    assert [c.row.cell.weights for c in chosen.fits] == ["/a", "random"]
    assert "a measured accuracy, 50.0 %" in chosen.why


def test_two_weights_of_one_model_are_two_candidates():
    rows = [_row(weights="/a"), _row(weights="/b")]
    listed = candidates(rows, [result(9, weights="/a"), result(2, weights="/b")], GOAL)
    assert listed[0].chance > 0.9 and listed[1].chance < 0.1
    assert [c.row.cell.weights for c in rank_candidates(listed, GOAL).fits] == ["/a", "/b"]


def test_too_slow_ones_are_listed_the_nearest_first_and_never_picked():
    rows = [_row("slowest", 9.0), _row("slow", 4.0), _row("quick", 1.0)]
    chosen = rank_candidates(
        candidates(rows, [_result("slow", 10), _result("slowest", 10), _result("quick", 1)], GOAL), GOAL
    )
    assert _names(chosen.fits) == ["quick"]
    assert _names(chosen.too_slow) == ["slow", "slowest"]
    assert "Pick: quick fp32" in chosen.why and "the only one with a measured accuracy, 10.0 %" in chosen.why
    shown = [line.split() for line in _shown(chosen).splitlines()]
    assert [line[4] for line in shown if line and line[0] in ("quick", "slow", "slowest")] == ["yes", "no", "no"]


def test_none_that_fits_names_the_nearest_and_what_would_fit():
    """10 s per micro-step at 1024 tokens: 1000 steps take 29.82 h, up to 35.43. 80 % of 12 h hold 270 of them."""
    goal = replace(GOAL, budget_hours=12.0)
    rows = [_row("near", 10.0, warmup_micro_s=(0.0,)), _row("far", 20.0)]
    chosen = rank_candidates(candidates(rows, [], goal), goal)
    assert chosen.fits == () and len(chosen.too_slow) == 2
    assert chosen.why.startswith("Pick: none fits 12 h. Nearest: near fp32 at 1024 tokens")
    assert (
        "load and 1000 steps for all 400 tasks take up to 35.4 h of 12, answers not counted; 270 steps would fit, or "
        "all on a device 3.69 times as fast."
    ) in chosen.why
    empty = rank_candidates([], GOAL)
    assert (empty.fits, empty.too_slow, empty.why) == ((), (), "Pick: none: no cell was measured.")


def test_a_tie_is_admitted():
    """12 and 11 of 20 right, one task apart: exact McNemar's p is 1. 18 against 2 of 20, 16 apart: 2 / 2**16."""
    rows = [_row("a"), _row("b"), _row("c")]
    results = [_result("a", 12, tasks=20), _result("b", 11, tasks=20), _result("c", 2, tasks=20)]
    chosen = rank_candidates(candidates(rows, results, GOAL), GOAL)
    assert _names(chosen.tied) == ["b"]
    assert "Not told apart from b fp32 on these tasks (p 1): a tie; more --tasks would tell." in chosen.why
    clear = rank_candidates(candidates(rows, [_result("a", 18, tasks=20), results[2]], GOAL), GOAL)
    assert clear.tied == () and "tie" not in clear.why


def test_without_any_accuracy_the_pick_is_by_speed_and_says_so():
    chosen = rank_candidates(candidates([_row("small", params=1), _row("large", params=2)], [], GOAL), GOAL)
    assert chosen.why.startswith("Best candidate: large")
    assert "the largest of 2 models that fit 12 h" in chosen.why
    assert chosen.why.endswith("No accuracy was measured: it may not be the best.")
    assert chosen.tied == ()


def test_where_the_only_accuracy_is_of_a_run_that_does_not_fit_that_is_said():
    chosen = rank_candidates(candidates([_row("tuned", 9.0), _row("quick")], [_result("tuned")], GOAL), GOAL)
    assert chosen.why.startswith("Best candidate: quick")
    assert chosen.why.endswith("What has a measured accuracy does not fit: it may not be the best.")


def test_without_any_accuracy_half_of_the_tasks_are_covered_where_a_model_allows_it():
    rows = [_row("small", context=2048, params=1), _row("large", context=512, params=2)]
    assert rank_candidates(candidates(rows, [], GOAL), GOAL).why.startswith("Best candidate: small")


def test_reference_steps_are_ranked_where_nothing_else_was_measured():
    own = _row("own")
    plain = replace(own.cell, model=spec("plain"), recipe=Recipe(implementation=REFERENCE))
    reference = replace(own, cell=plain)
    assert _names(rank_candidates(candidates([reference], [], GOAL), GOAL).fits) == ["plain"]
    assert _names(rank_candidates(candidates([reference, own], [], GOAL), GOAL).fits) == ["own"]


def test_a_report_names_the_candidate_that_pick_names():
    """17.8 h of the wide model at full contexts are over 12 h; over ARC's lengths, as it will be trained, it fits."""
    rows = [_row("wide", 4.0, context=2048, params=1), _row("large", 1.0, params=2)]
    out = io.StringIO()
    terminal.show(rows, [], GOAL, Console(file=out, width=1000, highlight=False))
    assert out.getvalue().rstrip().endswith(rank_candidates(candidates(rows, [], GOAL), GOAL).why)


def test_a_pick_without_accuracy_is_of_what_the_table_says_fits():
    """4 s per micro-step of 2048 tokens are 17.8 h at full contexts; over ARC's lengths 2.26 s, 10.04 h, 11.93 at the
    slow end. It admits 74 %, more than half, so it goes before the larger model, whose context admits 27 %."""
    rows, goal = (
        [_row("wide", 4.0, context=2048, params=1), _row("large", 1.0, params=2)],
        replace(GOAL, budget_hours=15),
    )
    chosen = rank_candidates(candidates(rows, [], goal), goal)
    assert _names(chosen.fits) == ["large", "wide"] and chosen.fits[1].hours_high == pytest.approx(11.93, abs=0.02)
    assert chosen.why.startswith(
        "Best candidate: wide fp32 at 2048 tokens: the only model that fits 15 h at a context that admits half of "
        "ARC's sequences, with 1000 steps for all 400 tasks over ARC's lengths in 10 h (8.15 to 11.9, answers not "
        "counted); its context admits 74 %"
    )


def test_a_model_whose_losses_are_no_numbers_is_not_picked():
    """`bench` calls it unstable: a pick by speed must not take it, and its sentence must not deny what is listed."""
    bad = _row("bad", params=9, losses=(2.0, float("nan")))
    chosen = rank_candidates(candidates([bad], [], GOAL), GOAL)
    assert chosen.fits == ()
    chosen = rank_candidates(candidates([bad, _row("good", params=1)], [], GOAL), GOAL)
    assert _names(chosen.fits) == ["good"]


def test_chances_are_over_those_with_an_accuracy():
    rows = [_row("a"), _row("b"), _row("c"), _row("a", context=2048)]
    listed = candidates(rows, [_result("a", 8), _result("b", 3)], GOAL)
    chances = [c.chance for c in listed]
    assert chances[0] > 0.95 and chances[2] is None and chances[3] is None  # at 2048 tokens it is another run
    assert chances[0] + chances[1] == pytest.approx(1.0)
    (alone,) = candidates(rows[:1], [_result("a", 8)], GOAL)
    assert alone.chance is None  # of one there is nothing to compare
