"""The tables and columns that say which candidate to take, and why, in the numbers of helpers/ranking.py."""

import csv
import io
from dataclasses import replace

import pytest
from helpers.ranking import FULL_SLOW, GOAL, SLOW, STEP_S
from helpers.ranking import flat as _flat
from helpers.ranking import result_of as _result
from helpers.ranking import row_of as _row
from helpers.ranking import shown as _shown
from helpers.records import cell, curve, result, row
from rich.console import Console

from harness.analysis import retraining
from harness.analysis.candidates import candidates
from harness.analysis.learning_curve import accuracy_after
from harness.analysis.ranking import rank_candidates
from harness.analysis.stats import wilson
from harness.catalog.published import ACCURACIES
from harness.records.cell import ModelSpec
from harness.report import export, frame, terminal, ttft


@pytest.fixture(autouse=True)
def same_with_every_seed(monkeypatch):
    """Figures by hand are of one training; what another seed changes is tested in test_analysis_comparison."""
    monkeypatch.setattr(retraining, "RECORDED", dict.fromkeys(retraining.RECORDED, (0.0, 0.0, 10, 9)))


# --- what is shown


def test_the_choice_by_hand_in_80_columns():
    """5 of 10 tuned, Wilson 24 to 76 %; baseline 2 of 10; two models, so that there is a chance of being best. 64 steps
    for 10 tasks are 102 sequences per task; 2560 for 400 take up to 9.07 h, with load and answers 10.7."""
    rows = [_row("a", load_s=1799.0), _row("[b]old")]
    results = [_result("a", 5, decode_s=90.0), _result("a", 2, steps=0, arm="baseline"), _result("[b]old", 1)]
    shown = _shown(rank_candidates(candidates(rows, results, GOAL), GOAL))
    assert max(map(len, shown.splitlines())) <= 80 and "\x1b" not in shown and "…" not in shown
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("a ")]
    assert line[:9] == ["a", "fp32", "1024", "10.7", "yes", "20.0", "50", "(24-76)", "102"]
    assert "[b]old" in shown
    text = _flat(shown)
    assert "tuned: measured on 10 tasks of made, 2 attempts, 2 views" in text
    assert "load, 1000 steps over ARC's lengths and the answers of 400 tasks; fits: within 12 h" in text
    assert "a fp32 1024, [b]old fp32 1024: all h is of the fine-tune whose accuracy was measured: 2560 steps" in text
    assert "The seconds of answering are measured for a fp32 1024." in text
    assert "[b]old fp32 1024: answers not counted" in text
    assert text.split(" Pick: ")[1].startswith("a fp32 at 1024 tokens: the highest measured accuracy of 2, 50.0 %")


def test_a_refused_projection_is_said_with_its_reason():
    results, goal = [result(11, tasks=20, curve_points=curve(20, 2, 5, 8, 11))], replace(GOAL, test_tasks=20)
    shown = _flat(_shown(rank_candidates(candidates([_row()], results, goal), goal), goal))
    assert "refused" in shown
    assert "no projection to 800 sequences per task: x15.6 beyond the last checkpoint; at most x8." in shown
    goal = replace(goal, steps=128)
    assert "tiny fp32: projected x2.0 beyond the last checkpoint." in _flat(
        _shown(rank_candidates(candidates([_row()], results, goal), goal), goal)
    )


def test_a_fine_tune_that_others_slowed_is_named_in_both_tables():
    slow = replace(_result("a", 5, decode_s=90.0), cores_taken=0.8)
    text = _flat(_shown(rank_candidates(candidates([_row("a")], [slow], GOAL), GOAL)))
    assert "a fp32: the fine-tune ran while others used its cores: hours are of the cell and not of its own" in text
    out = io.StringIO()
    ttft.arms_table([slow], Console(file=out, width=80))
    assert f"{slow.label}: timed while others used its cores" in _flat(out.getvalue())


def test_what_was_published_is_named_beside_and_marked_as_such():
    chosen = rank_candidates(candidates([_row("phi-3-mini")], [], GOAL), GOAL)
    text = _flat(_shown(chosen))
    assert "phi-3-mini: no weights: accuracy not measured; harness ttft phi-3-mini" in text
    assert "Published for Phi-3 (ironbar/arc24, iteration 4, August 2024): 6.5 % before, 16.8 % after." in text
    assert "16.8" not in chosen.why
    measured = rank_candidates(candidates([_row("phi-3-mini")], [_result("phi-3-mini", 5)], GOAL), GOAL)
    assert "Published" not in _shown(measured)


def test_the_whole_report_shows_speed_then_accuracy_then_the_pick():
    out = io.StringIO()
    rows = [_row("a"), _row("b")]
    results = [
        _result("a", 2, steps=0, arm="baseline"),
        _result("a", 5, curve_points=curve(10, 2, 3, 4, 5)),
        _result("b", 4),
    ]
    terminal.show(rows, results, replace(GOAL, steps=256, test_tasks=10), Console(file=out, width=80, highlight=False))
    shown = out.getvalue()
    text = _flat(shown)
    assert max(map(len, shown.splitlines())) <= 80
    assert "Best candidate" not in text  # one pick, and by accuracy
    order = ["A step is 16 sequences", "highest: n-1, 50.0 % of 10 tasks.", "Best arm: n-1, 40.0 %", "Pick: "]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "n-1: measured 50.0 % at 64 steps; projected to 256 steps" in text
    bare = io.StringIO()
    terminal.show(rows, [], GOAL, Console(file=bare, width=80, highlight=False))
    assert "Best candidate: " in bare.getvalue() and "Pick" not in bare.getvalue()


def test_results_stand_in_one_table_where_they_can_be_compared():
    a, base = _result("a", 5), _result("a", 2, steps=0, arm="baseline")
    groups = ttft.by_comparison(
        [base, _result("b", 4), a, _result("a", 3, context=512), _result("a", 1, dataset="other")]
    )
    assert [[(r.spec.model.name, r.arm) for r in group] for group in groups] == [
        [("a", "baseline"), ("a", "n-1")],
        [("b", "n-1")],
        [("a", "n-1")],
        [("a", "n-1")],
    ]


# --- the columns


def test_the_columns_of_accuracy_by_hand(tmp_path):
    """5 of 10 at 64 steps against 2 of 10; Wilson 23.7 to 76.3 %. The other rows have nothing in these columns."""
    rows = [_row(load_s=1799.0), _row(precision="int4"), _row(weights="/other"), _row("other"), row(status="oom")]
    results = [
        result(5, decode_s=90.0, arm="+ color swap", curve_points=curve(10, 2, 3, 4, 5)),
        result(2, steps=0, arm="baseline"),
    ]
    goal = replace(GOAL, steps=256, test_tasks=10)
    export.write_csv(rows, results, goal, tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        first, *others = csv.DictReader(file)
    assert list(first) == list(frame.COLUMNS)
    estimate = accuracy_after(results[0].curve_points, 256)
    assert first["accuracy_arm"] == "'+ color swap"  # no formula
    numbers = {
        "accuracy": 0.5,
        "accuracy_low": wilson(5, 10)[0],
        "accuracy_high": wilson(5, 10)[1],
        "accuracy_steps": 64,
        "accuracy_baseline": 0.2,
        "accuracy_tasks": 10,
        "accuracy_context": 1024,
        "accuracy_views": 2,
        "answer_loss": 0.5,
        "grid_nll": 6.0,
        "projected_accuracy_low": estimate.low,
        "projected_accuracy": estimate.mid,
        "projected_accuracy_high": estimate.high,
        "projected_steps": 256,
        "projected_reach": 4.0,
        "decode_s_per_task": 9.0,
        "inference_hours": 0.025,
        # The run that was measured, as in run_hours_high: 64 steps over ARC's lengths, and the answers.
        "total_hours_high": 0.5 + 64 * STEP_S / 3600 * SLOW + 0.025 * FULL_SLOW,
    }
    assert first["total_hours_high"] == first["run_hours_high"]
    for name, value in numbers.items():
        assert float(first[name]) == pytest.approx(value, rel=1e-4), name
    assert (first["accuracy_set"], first["projection_refused"], first["chance_of_best"]) == ("made", "", "")
    start, end = (frame.COLUMNS.index(name) for name in ("accuracy_arm", "implementation"))
    columns = frame.COLUMNS[start:end]
    assert len(columns) == len(numbers) + 4
    for other in others:
        assert {other[name] for name in columns} == {""}


def test_published_figures_are_in_no_column(tmp_path):
    rows = [_row(name) for name in ACCURACIES]
    for results in ([], [_result("tiny", 5), _result("phi-3-mini", 5, weights="/elsewhere")]):
        export.write_csv(rows, results, GOAL, tmp_path / "summary.csv")
        with (tmp_path / "summary.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                assert {v for k, v in line.items() if "accuracy" in k or "projected" in k} == {""}
                published = ACCURACIES[line["model"]]
                assert not {str(published.before), str(published.after)} & set(line.values())


def test_a_name_that_a_spreadsheet_would_obey_is_made_safe_in_the_new_columns_too(tmp_path):
    results = [result(5, dataset="=cmd|' /C calc'!A0")]
    export.write_csv([_row()], results, GOAL, tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["accuracy_set"].startswith("'=")


def test_a_model_spec_in_the_record_need_not_say_how_it_is_fine_tuned():
    """The ttft block of models.yaml is no part of what is measured: with another one a cell and an arm are the same."""
    spec = ModelSpec("tiny", {}, 64)
    other = replace(spec, ttft={"steps": 3})
    assert cell(model=spec).key({}) == cell(model=other).key({})
    assert result(1, model=spec).key == result(1, model=other).key


def test_another_precision_of_a_model_with_weights_says_how_to_measure_it():
    text = _flat(_shown(rank_candidates(candidates([_row("small", precision="int4", weights="/a")], [], GOAL), GOAL)))
    assert "small int4: accuracy not measured; harness ttft small --precision int4 does." in text
    assert "no weights" not in text


def test_an_accuracy_on_other_tasks_is_named_and_not_compared():
    rows = [_row("a"), _row("b")]
    results = [_result("a", 5), _result("a", 2, steps=0, arm="baseline"), _result("b", 4, dataset="other", views=8)]
    text = _flat(_shown(rank_candidates(candidates(rows, results, GOAL), GOAL)))
    assert (
        "b fp32 1024: its accuracy is of other tasks (10 tasks of other, 8 views) than the others' (10 tasks of made, "
        "2 views): not joined." in text
    )
    assert "harness ttft b" not in text and "Each against another" not in text and "Pick: a" in text


def test_every_two_models_are_compared_by_loss_and_by_tasks_solved():
    rows = [_row(name) for name in "abc"]
    nats = {"a": 0.3, "b": 0.5, "c": 0.5}
    results = [
        _result(n, right, answer_losses=((nats[n], 12),) * 10) for n, right in zip("abc", (8, 1, 1), strict=True)
    ]
    choice = rank_candidates(candidates(rows, results, GOAL), GOAL)
    assert [(p.first.spec.model.name, p.second.spec.model.name) for p in choice.pairs] == [
        ("a", "b"), ("a", "c"), ("b", "c"),
    ]  # fmt: skip
    shown = _shown(choice)
    assert max(map(len, shown.splitlines())) <= 80 and "Each against another, on the same tasks:" in _flat(shown)
    assert choice.pairs[0].nats[1] == pytest.approx(2.4) and choice.pairs[0].solved_p == pytest.approx(2 / 2**7)
    # The pick is the best of three, and its figure less that luck is said.
    assert (
        "80.0 % (less the luck of being chosen 7" in choice.why
        or "80.0 % (less the luck of being chosen 80" in choice.why
    )


def test_what_arms_cannot_say_is_named():
    def printed(*rows):
        out = io.StringIO()
        best = ttft.arms_table(rows, Console(file=out, width=80, highlight=False))
        assert max(map(len, out.getvalue().splitlines())) <= 80
        return best, _flat(out.getvalue())

    _, text = printed(_result("a", 5), _result("a", 4, arm="n-2"))
    assert "No untuned model is among these arms" in text and "none is told apart from n-1 as better" in text
    one = [result(1, tasks=1, arm="baseline", steps=0), result(1, tasks=1)]
    best, text = printed(*one)
    assert "One task tells no arms apart" in text and "No untuned model" not in text and best
    _, text = printed(result(1, tasks=1))
    assert "Best arm: n-1, 100.0 % of 1 tasks." in text


def test_the_last_line_says_what_tells_tuning_from_none():
    def arm(name, shift, right, steps=64):
        losses = tuple(((20 + i % 7 - shift - 0.3 * (i % 3)) / 12, 12) for i in range(30))
        return result(right, tasks=30, arm=name, steps=steps, answer_losses=losses)

    def last(*rows):
        out = io.StringIO()
        best = ttft.arms_table(rows, Console(file=out, width=80, highlight=False))
        return best.arm, _flat(out.getvalue()).rpartition("Best arm: ")[2]

    base, better, worse = arm("baseline", 0, 3, steps=0), arm("n-1", 8, 6), arm("n-2", -8, 2)
    best, line = last(base, better, worse)
    assert best == "n-1" and line.startswith("n-1, 20.0 % of 30 tasks; less the luck of being chosen ")
    assert "Tuning works: 8 nats per grid (8 to 8) less than baseline, p <.001." in line
    assert "Tasks solved: +10.0 points, not told apart (p 0.5); some 109 tasks would tell such a difference." in line
    # More tasks right, which chance explains, and a higher loss, which it does not.
    assert last(base, arm("n-1", -8, 6))[1].endswith("Told apart from it and worse: n-1.")
    # Nothing better than no tuning, and worse ones named.
    best, line = last(base, worse)
    assert best == "baseline" and line.startswith("none is told apart from baseline as better (p <.001 by loss, ")
    assert line.endswith("Told apart from it and worse: n-2.")
    # One task fewer, and a lower loss on all: the gain is what is told.
    best, line = last(arm("baseline", 0, 4, steps=0), arm("n-1", 8, 3))
    assert best == "n-1" and line.startswith("n-1, 10.0 % of 30 tasks. Tuning works: 8 nats per grid")
    # Beside another tuned arm nothing says that tuning works.
    assert "Tuning works" not in last(arm("n-2", 0, 3), arm("n-1", 8, 6))[1]
