"""The verb compare: what it shows, the CSV, the page, and input that cannot be compared."""

import csv
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.compared import made_pair, record, runner
from helpers.pages import HOSTILE
from helpers.records import cell, result, row

import harness
from harness.records.cell import Recipe
from harness.records.measurement import CROWDED

PUBLISHED = Path(__file__).parents[1] / "results" / "reference" / "published"
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "amd-epyc-zen5-2-threads"


@pytest.fixture
def run(capsys, monkeypatch):
    return runner(capsys, monkeypatch)


@pytest.fixture
def pair(tmp_path):
    return made_pair(tmp_path)


def test_it_says_which_is_faster_what_differs_and_what_is_in_one_only(run, pair):
    code, shown, _ = run(*pair)
    assert code == 0
    assert "B is 2.00 times as fast as A (1.77 to 2.27) over 2 cells." in shown
    assert "torch: A 2.6.0; B 2.14.1." in shown
    assert "ran in A, not in B: tiny fp32 2048 (oom)." in shown
    assert "only in A: 1 row: tiny int4 1024." in shown and "only in B: 1 row: tiny int8 1024." in shown
    assert "Of 1 arm told apart in accuracy or loss (p for their number): n-1 (better)." in shown
    assert "tiny fp32 n-1 6.00 2.40 0.400" in shown  # nats per grid
    assert "tiny fp32 n-1 30.0 80.0 +50.0" in shown


def test_the_csv_has_every_comparison(run, pair, tmp_path):
    assert run(*pair, "--csv", tmp_path / "x.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines()))
    assert [r["what"] for r in rows].count("seconds per step") == 2
    first = rows[0]
    assert (first["a"], first["b"], first["change"], first["gate"]) == ("32", "16", "0.5", "passed")
    assert {r["what"]: r["gate"] for r in rows}["failed"] == "worse"
    assert {"only in A", "only in B", "tasks solved", "nats per grid"} <= {r["what"] for r in rows}


def test_two_real_sweeps_of_one_machine_pass(run):
    code, shown, _ = run(REFERENCE / "records.jsonl", REFERENCE / "records-3.jsonl", "--gate")
    assert code == 0
    assert "Speeds are not told apart" in shown and "over 36 cells" in shown and "commit: A" in shown


def test_different_devices_are_said_and_judged_only_where_that_is_wanted(run, tmp_path):
    a = record(tmp_path / "a", [row()])
    b = record(tmp_path / "b", [row((3.0,) * 12, cell=cell(device_name="B CPU"))])
    code, shown, _ = run(a, b)
    assert code == 0 and "On different devices (A: a CPU; B: B CPU): A is 3.00 times as fast as B" in shown
    code, shown, problem = run(a, b, "--gate")
    assert code == 2 and "of different devices, which is not judged" in problem
    assert run(a, b, "--gate", "--any-device")[0] == 1
    # Beside a cell of the same device the other is said, and judged only where that is wanted.
    both = record(tmp_path / "both", [row(), row(cell=cell(context=512))])
    there = record(
        tmp_path / "there", [row((1.01,) * 12), row((3.0,) * 12, cell=cell(context=512, device_name="B CPU"))]
    )
    assert run(both, there, "--gate")[0] == 0 and run(both, there, "--gate", "--any-device")[0] == 1
    with pytest.raises(harness.UserError, match="different devices"):
        harness.compare(a, b).passed  # noqa: B018


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([row(cell=cell(precision="int4"))], [], "have no cell and no arm in common"),
        ([row(notes=(CROWDED,))], ["--gate"], "timed while others used the cores"),
        ([row()], ["--tolerance", "-1"], "--tolerance must be a number from 0 to 1,000"),
        ([row()], ["--drift", "nan"], "--drift must be a number"),
        ([row()], ["--csv", "nowhere/x.csv"], "cannot be written"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, tmp_path, rows, words, message):
    code, _, problem = run(record(tmp_path / "a", [row()]), record(tmp_path / "b", rows), *words)
    assert code == 2 and problem.startswith("error: ") and message in problem and problem.count("\n") == 1


def test_a_folder_without_a_record_is_one_line(run, tmp_path):
    code, _, problem = run(record(tmp_path / "a", [row()]), tmp_path / "nothing")
    assert code == 2 and "cannot be read (No such file or directory); run `harness bench` first" in problem
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_page_has_all_of_it_escaped_and_loads_nothing(run, tmp_path):
    made = [
        record(tmp_path / side, [
            row((seconds,) * 12, cell=cell(model=replace(cell().model, name=name)), versions={"torch": name})
            for name in HOSTILE
        ])
        for side, seconds in (("a", 1.0), ("b", 1.5))
    ]  # fmt: skip
    code, _, _ = run(*made, "--html", tmp_path / "x.html", "--gate")
    text = (tmp_path / "x.html").read_text()
    assert code == 1 and text.count('<th scope="row">') == 2 * len(HOSTILE) and text.count(">WORSE<") == len(HOSTILE)
    assert "<h1>A is 1.50 times as fast as B (1.32 to 1.70) over 22 cells.</h1>" in text
    # Its elements and attributes are the template's: no text made one.
    seen = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, named: seen.update([tag, *(f"{tag} {name}" for name, _ in named)])
    parser.feed(text)
    assert {name for name in seen if " " not in name} == {
        "html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "p", "h1", "h3", "h2",
        "span", "table", "thead", "tbody", "tr", "th", "td", "ul", "li",
    }  # fmt: skip
    assert {name.split()[1] for name in seen if " " in name} <= {
        "lang", "charset", "name", "content", "http-equiv", "rel", "href", "class", "title", "scope", "data-label"
    }  # fmt: skip
    assert "\x1b" not in text and "\u202e" not in text


def test_published_steps_are_shown_beside_and_never_judged(run, tmp_path):
    """Three minutes for ten steps are 18 s per step, here 12 of 16 sequences at full contexts: 1.5."""
    spec = replace(cell().model, name="phi-3-mini")
    a = record(tmp_path / "a", [row((0.75,) * 12, cell=cell(model=spec, precision="fp16", compute_dtype="fp32"))])
    code, shown, _ = run(a, PUBLISHED)
    assert code == 0 and "phi-3-mini fp16 1024 12.0+ 18.0 1.50" in shown and "not judged" in shown
    assert "A was measured on a CPU; published: ironbar/arc24" in shown
    assert "phi-3-mini fp16 1024 fp32, published fp16" in shown
    for word in (
        "--gate",
        "--tolerance=0",
        "--deviations=3",
        "--drift=1",
        "--any-device",
        "--allow-missing",
        "--csv=x",
    ):
        code, _, problem = run(a, PUBLISHED, word)
        assert code == 2 and "published steps are of other machines" in problem
        assert f"leave out {word.partition('=')[0]}" in problem
    code, _, problem = run(PUBLISHED, a)
    assert code == 2 and "name the record first and the table second" in problem and problem.count("\n") == 1
    # A table that went through a spreadsheet begins with a mark.
    marked = tmp_path / "marked.csv"
    marked.write_text(PUBLISHED.joinpath("rows.csv").read_text(), encoding="utf-8-sig")
    assert run(a, marked)[1] == shown.replace(str(PUBLISHED), str(marked))
    code, _, problem = run(record(tmp_path / "b", [row()]), PUBLISHED)
    assert code == 2 and "the record has no cell of" in problem
    table = tmp_path / "other.csv"
    for text in ("", "a,b\n1,2\n", PUBLISHED.joinpath("rows.csv").read_text().replace(",16,", ",-16,")):
        table.write_text(text)
        code, _, problem = run(a, table)
        assert code == 2 and problem.count("\n") == 1


def test_the_same_measurement_in_both_is_said(run, tmp_path):
    same = row(started="2026-01-01T00:00:00+00:00")
    _, shown, _ = run(record(tmp_path / "a", [same]), record(tmp_path / "b", [same]))
    assert "1 row the very same measurement in both" in shown


def test_it_is_a_function_too(pair):
    compared = harness.compare(str(pair[0]), str(pair[1]))
    assert not compared.passed
    assert compared.sentences[0].startswith("B is 2.00 times as fast as A")
    frame = compared.frame
    assert list(frame[frame["what"] == "seconds per step"]["change"]) == [0.5, 0.5]


def test_an_arm_worse_in_loss_and_better_in_accuracy_has_both_verdicts(run, tmp_path):
    a = record(tmp_path / "a", results=[result(0, tasks=40, answer_losses=((0.2, 12),) * 40)])
    b = record(tmp_path / "b", results=[result(40, tasks=40, answer_losses=((0.9, 12),) * 40)])
    both = "told apart in accuracy or loss (p for their number): n-1 "
    assert both + "(worse in loss, better in accuracy)." in run(a, b)[1]
    assert both + "(better in loss, worse in accuracy)." in run(b, a)[1]


def test_corrupt_lines_are_said(run, tmp_path):
    a, b = record(tmp_path / "a", [row()]), record(tmp_path / "b", [row((1.01,) * 12)])
    with (b / "records.jsonl").open("a") as file:
        file.write("half a li\n")
    code, _, problem = run(a, b)
    assert code == 0 and f"1 corrupt lines of {b} were left out" in problem


def test_published_steps_beside_one_sequence_and_arcs_lengths(run, tmp_path):
    """A step of 8 sequences has one update of a second, and so has one of 16; the newest row of a cell counts, and the
    interval is of the steps that are shown."""
    spec = replace(cell().model, name="phi-3-mini")
    own = cell(model=spec, precision="fp16", compute_dtype="fp16", recipe=Recipe(sequences_per_step=8))
    older = row((9.0,) * 12, cell=own, versions={"torch": "1"})
    newer = row((0.5,) * 12, cell=own, optimizer_s=(1.0,), versions={"torch": "2"}, key="newer")
    _, shown, _ = run(record(tmp_path / "a", [older, newer]), PUBLISHED)
    assert shown.count("phi-3-mini fp16 1024") == 1 and "phi-3-mini fp16 1024 9.00+ 18.0 2.00" in shown
    spread = replace(newer, arc_step_s=(1.5, 2.5) * 6)
    _, wide, _ = run(record(tmp_path / "b", [spread]), PUBLISHED)
    assert "phi-3-mini fp16 1024 3.00 18.0 6.00" in wide
    # 16 % of the steps' own scatter beside 9 % of drift and 17 % of rounding: 25 %, and without it 19 %.
    low, high = map(float, wide.partition("6.00 ")[2].split()[:3:2])
    assert 6 / low > 1.25 and high / 6 > 1.25
