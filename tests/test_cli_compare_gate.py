"""The gate of compare: when it may pass, when it fails, and when it cannot judge."""

import csv

import pytest
from helpers.compared import made_pair, record, runner
from helpers.records import cell, result, row

import harness


@pytest.fixture
def run(capsys, monkeypatch):
    return runner(capsys, monkeypatch)


@pytest.fixture
def pair(tmp_path):
    return made_pair(tmp_path)


def test_the_gate_fails_where_b_is_worse_or_fails(run, pair, tmp_path):
    code, shown, _ = run(*pair, "--gate")
    assert (
        code == 1
        and "Gate: failed by tiny fp32 2048, which is oom; failed, for 1 row ran in A and is not in B" in shown
    )
    code, shown, _ = run(pair[1], pair[0], "--gate")
    assert code == 1
    assert "A is 2.00 times as fast as B" in shown
    assert "Gate: failed by seconds per step of tiny fp32 512, seconds per step of tiny fp32 1024" in shown
    assert "nats per grid of tiny fp32 n-1" in shown
    faster = record(tmp_path / "faster", [row(cell=cell(context=512))])
    code, shown, _ = run(pair[0], faster, "--gate", "--allow-missing")
    assert code == 0 and "Gate: passed, 2 comparisons. What it sees, from: seconds per step 37 %" in shown


def test_limits_are_options(run, tmp_path):
    a, b = record(tmp_path / "a", [row()]), record(tmp_path / "b", [row((1.45,) * 12)])
    assert run(a, b, "--gate")[0] == 1
    assert run(a, b, "--gate", "--tolerance", "50")[0] == 0
    assert run(a, b, "--gate", "--deviations", "6")[0] == 0
    slightly = record(tmp_path / "c", [row((1.10,) * 12)])
    assert run(a, slightly, "--gate")[0] == 0
    assert run(a, slightly, "--gate", "--drift", "1")[0] == 1


def test_a_gate_does_not_pass_where_no_speed_could_be_judged(run, tmp_path):
    """One micro-step has no interval: memory alone is no ground for passing, however slow B is."""
    a = record(tmp_path / "a", [row((1.0,))])
    b = record(tmp_path / "b", [row((9.0,), started="2026-01-02T00:00:00+00:00")])
    code, _, error = run(a, b, "--gate")
    assert code == 2 and "no common cell has samples enough for an interval of its seconds" in error
    assert run(a, b)[0] == 0


def test_what_only_a_has_fails_the_gate_unless_that_is_allowed(run, tmp_path):
    """A sweep that ended halfway is no pass; what failed in A already is not lost."""
    failed = row(status="oom", reason="no", cell=cell(context=4096))
    a = record(tmp_path / "a", [row(), row(cell=cell(context=512)), failed], [result(3)])
    b = record(tmp_path / "b", [row((1.01,) * 12)])
    code, shown, _ = run(a, b, "--gate", "--csv", tmp_path / "x.csv")
    assert code == 1
    assert (
        "Gate: failed, for 2 rows ran in A and are not in B (measure them, or --allow-missing): "
        "tiny fp32 512, tiny fp32 n-1." in shown
    )
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines()))
    assert [(r["context"], r["gate"]) for r in rows if r["what"] == "only in A"] == [
        ("512", "worse"), ("4096", "not judged"), ("1024", "worse")
    ]  # fmt: skip
    assert run(a, b, "--gate", "--allow-missing")[0] == 0
    assert run(b, a, "--gate")[0] == 0
    assert not harness.compare(a, b).passed and harness.compare(a, b, allow_missing=True).passed


def test_a_training_that_diverged_fails_the_gate_and_is_said(run, tmp_path):
    """Its losses are no numbers, so nothing of them is compared; its few answers tell nothing."""
    numbers, none = (((loss, 12),) * 10 for loss in (0.5, float("nan")))
    a = record(tmp_path / "a", results=[result(1, answer_losses=numbers)])
    b = record(tmp_path / "b", results=[result(0, answer_losses=none)])
    code, shown, _ = run(a, b, "--gate", "--csv", tmp_path / "x.csv")
    assert code == 1 and "Gate: failed by tiny fp32 n-1, whose losses are no numbers." in shown
    assert "not compared, for want of losses that are numbers in B: tiny fp32 n-1." in shown
    rows = {r["what"]: r for r in csv.DictReader((tmp_path / "x.csv").read_text().splitlines())}
    assert rows["losses no numbers"]["gate"] == "worse"
    # The other way round is no worsening.
    assert run(b, a, "--gate")[0] == 0


def test_a_peak_that_lacks_is_said_and_memory_alone_is_not_taken_for_judged(run, tmp_path):
    a = record(tmp_path / "a", [row(), row(cell=cell(context=512))])
    half = record(tmp_path / "half", [row((1.01,) * 12), row((1.01,) * 12, cell=cell(context=512), memory={})])
    code, shown, _ = run(a, half, "--gate")
    assert code == 0 and "not compared, for want of a peak in B: tiny fp32 512." in shown
    none = [row((1.01,) * 12, cell=cell(context=context), memory={}) for context in (512, 1024)]
    code, _, problem = run(a, record(tmp_path / "none", none), "--gate")
    assert code == 2 and "no common cell of B has a peak of memory" in problem and problem.count("\n") == 1


def test_a_record_does_not_pass_against_its_own_copy(run, tmp_path):
    same = row(started="2026-01-01T00:00:00+00:00", losses=(float("nan"),))
    a, b = (record(tmp_path / side, [same]) for side in "ab")
    code, _, problem = run(a, b, "--gate")
    assert code == 2 and "have the very same measurements" in problem and problem.count("\n") == 1
    assert run(a, b)[0] == 0


def test_the_page_has_no_verdict_of_a_gate_that_cannot_judge(run, tmp_path):
    a, b = record(tmp_path / "a", [row()]), record(tmp_path / "b", [row(cell=cell(device_name="B CPU"))])
    assert run(a, b, "--html", tmp_path / "x.html")[0] == 0
    text = (tmp_path / "x.html").read_text()
    assert "Gate: no verdict:" in text and "are of different devices" in text and "passed" not in text
