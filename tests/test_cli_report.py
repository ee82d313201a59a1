"""The verbs that read a record: report and pick."""

from dataclasses import replace

import pytest
from helpers.pages import solved
from helpers.records import cell, curve, result, row

from harness.cli import app
from harness.records.arm import ROWS
from harness.records.cell import ModelSpec
from harness.records.solving import ROWS as SOLVED
from harness.records.store import Store


@pytest.fixture
def record(tmp_path):
    """A folder of two models, 4.7 and 14.1 h for 1000 steps; the quicker one with 5 of 10 right, 2 before."""
    store = Store(tmp_path / "a-cpu")
    slow = cell(model=ModelSpec("slow", {}, 4096, params_m=9.0))
    for each in (row(), row((3.0,) * 12, cell=slow)):
        store.add(each)
    arms = Store(tmp_path / "a-cpu", kind=ROWS)
    for each in (result(2, steps=0, arm="baseline"), result(5, decode_s=9.0, curve_points=curve(10, 2, 3, 4, 5))):
        arms.add(each)
    return tmp_path / "a-cpu"


def _run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code or 0, capsys.readouterr()


def test_pick_ends_with_0_and_the_pick_or_with_1_where_none_fits(record, capsys):
    code, shown = _run(capsys, "pick", "--results", str(record))
    flat = " ".join(shown.out.split())
    assert code == 0 and shown.err == ""
    assert max(map(len, shown.out.split("\n", 1)[1].splitlines())) <= 80
    assert "Pick: tiny fp32 at 1024 tokens: the only one with a measured accuracy, 50.0 %" in flat
    assert "slow: no weights: accuracy not measured" in flat
    code, shown = _run(capsys, "pick", "--results", str(record), "--budget-hours", "1")
    assert code == 1
    assert "Pick: none fits 1 h. Nearest: tiny fp32" in " ".join(shown.out.split())
    assert max(map(len, shown.out.split("\n", 1)[1].splitlines())) <= 80
    code, shown = _run(capsys, "pick", "--results", str(record), "--budget-hours", "1", "--test-tasks", "10")
    assert code == 0 and "projected" in shown.out


def test_pick_counts_the_answers_of_so_many_tasks(record, capsys):
    """0.9 s per task: 400 take 0.1 h, and 2560 steps for them up to 8.8 h; 3.48 h hold a quarter of both, not all."""
    words = ("pick", "--results", str(record), "--budget-hours", "3.48")
    assert _run(capsys, *words)[0] == 1
    assert _run(capsys, *words, "--test-tasks", "100")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget-hours", "0"], "--budget-hours must be a number above 0"),
        (["--steps", "-1"], "--steps must be a whole number from 1 to"),
        (["--test-tasks", "0"], "--test-tasks must be a whole number from 1 to"),
        (["--results", "nowhere"], "cannot be read"),
    ],
)
def test_pick_refuses_in_one_line(record, capsys, words, message):
    code, shown = _run(capsys, "pick", "--results", str(record), *words)
    assert code == 2 and message in shown.err and len(shown.err.strip().splitlines()) == 1


def test_the_report_shows_the_accuracies_of_the_record(record, capsys, tmp_path):
    path = tmp_path / "x.csv"
    code, shown = _run(capsys, "report", "--results", str(record), "--csv", str(path))
    assert code == 0
    flat = " ".join(shown.out.split())
    assert "highest: n-1, 50.0 % of 10 tasks." in flat
    assert "Against baseline:" in flat and "+30.0" in flat
    assert "Pick: tiny fp32" in flat and "Best candidate" not in flat
    assert max(map(len, shown.out.split("\n", 1)[1].splitlines())) <= 80
    tiny, slow = path.read_text().splitlines()[1:]
    assert ",n-1,0.5," in tiny and ",n-1," not in slow


@pytest.mark.parametrize("verb", ["report", "pick"])
def test_rows_of_older_and_later_rules_are_left_out_and_counted(record, capsys, verb, tmp_path):
    """Of a cell and an arm that nothing newer is of, and rows that this version cannot read."""
    Store(record).add(row(key="old", rule=1, cell=cell(context=4096)))
    Store(record, kind=ROWS).add(replace(result(5, arm="n-2"), key="old", rule=1))
    with (record / "records.jsonl").open("a") as file:
        file.write('{"rule": 99}\n')
    shown = _run(capsys, verb, "--results", str(record), *(["--html", str(tmp_path / "x")] if verb == "report" else []))
    older, later = shown[1].err.splitlines()
    assert older.startswith("2 rows of older rules were left out: measure them again")
    assert later == "1 rows of a later version were left out: read them with that version"
    if verb == "report":
        assert "2 rows of older rules were left out" in (tmp_path / "x").read_text()


def test_a_record_without_cells_is_not_called_empty(tmp_path, capsys):
    """What ttft or solve left alone."""
    Store(tmp_path / "arms", kind=ROWS).add(result(5))
    code, shown = _run(capsys, "report", "--results", str(tmp_path / "arms"))
    assert code == 0 and "n-1" in shown.out and "empty" not in shown.out
    for attempt in solved(3):
        Store(tmp_path / "run", kind=SOLVED).add(attempt)
    code, shown = _run(capsys, "report", "--results", str(tmp_path / "run"))
    assert code == 0 and "empty" not in shown.out
    assert "newest run of solve: 0 of the 3 tasks that it tried have an answer, after 3" in " ".join(shown.out.split())
    Store(tmp_path / "none")
    assert "The record is empty." in _run(capsys, "report", "--results", str(tmp_path / "none"))[1].out


def test_a_bad_line_among_the_accuracies_is_left_out_and_counted(record, capsys):
    with (record / ROWS.name).open("a") as file:
        file.write("half a li\n")
    assert "1 corrupt lines were left out" in _run(capsys, "report", "--results", str(record))[1].err
