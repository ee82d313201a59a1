"""arms.csv: every arm with what tells it from the first one, and every two candidates."""

import csv

import pytest
from helpers.ranking import GOAL
from helpers.ranking import result_of as _result
from helpers.ranking import row_of as _row
from helpers.records import result

from harness.analysis.comparison import against
from harness.analysis.retraining import noise_for
from harness.report import arms_csv, formats


def _written(rows, results, folder):
    path = formats.write("arms", rows, results, GOAL, folder)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_arm_has_a_row_with_the_figures_of_the_table(tmp_path):
    losses = [tuple(((20 + i % 5 - shift) / 12, 12) for i in range(10)) for shift in (0, 4)]
    arms = [
        _result("a", 2, steps=0, arm="baseline", answer_losses=losses[0]),
        _result("a", 5, answer_losses=losses[1], seed=7),
        _result("a", 0, arm="=cmd()", status="oom", reason="memory ran out"),
    ]
    base, tuned, failed = _written([_row("a")], arms, tmp_path)
    assert set(base) == set(arms_csv.COLUMNS)
    (c,) = against(arms[0], arms[1:2], noise_for(arms, arms[1].spec))
    assert (base["against"], tuned["against"], failed["against"]) == ("", "baseline", "")
    for name, value in (("nats", c.nats[1]), ("nats_low", c.nats[0]), ("nats_p", c.nats_p), ("nats_holm", c.nats_holm),
                        ("gain", 0.3), ("solved_p", c.solved_p), ("tasks_to_tell", c.tasks_to_tell)):  # fmt: skip
        assert float(tuned[name]) == pytest.approx(value, rel=1e-4)
    assert float(tuned["nats"]) == pytest.approx(-4) and tuned["seed"] == "7" and tuned["solved"] == "5"
    # What a spreadsheet would run is text; a failure has its reason and no figures.
    assert failed["arm"].startswith("'=") and failed["reason"] == "memory ran out" and failed["accuracy"] == ""


def test_every_two_candidates_have_a_row(tmp_path):
    rows, results = [_row(name) for name in "ab"], [_result("a", 5), _result("b", 2)]
    written = _written(rows, results, tmp_path)
    assert [(row["model"], row["against"]) for row in written] == [("a", ""), ("b", ""), ("b", "a fp32 n-1")]
    assert float(written[2]["gain"]) == pytest.approx(-0.3)


def test_without_arms_there_is_a_heading_alone(tmp_path):
    assert _written([_row("a")], [], tmp_path) == []
    assert _written([], [result(1, status="crashed", reason="x")], tmp_path)[0]["status"] == "crashed"


def test_repeats_have_rows_and_are_compared_once(tmp_path):
    arms = [_result("a", 2, steps=0, arm="baseline"), *(_result("a", 5 + seed, seed=seed) for seed in range(3))]
    written = _written([], arms, tmp_path)
    assert [(row["seed"], row["against"]) for row in written] == [("0", ""), ("0", "baseline"), ("1", ""), ("2", "")]
