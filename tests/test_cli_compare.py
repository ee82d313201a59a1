"""The verb compare: what it says, its exit codes, the CSV, and input that cannot be compared."""

import csv
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.pages import HOSTILE
from helpers.records import cell, result, row

import harness
from harness.cli import app
from harness.records.arm import ROWS
from harness.records.cell import Recipe
from harness.records.measurement import CROWDED
from harness.records.store import Store

PUBLISHED = Path(__file__).parents[1] / "results" / "reference" / "published"
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "amd-epyc-zen5-2-threads"


def record(folder, rows=(), results=()):
    for kind, made in ((None, rows), (ROWS, results)):
        store = Store(folder, **({"kind": kind} if kind else {}))
        for each in made:
            store.add(each)
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def compare(*words):
        with pytest.raises(SystemExit) as end:
            app.main(["compare", *map(str, words)])
        shown = capsys.readouterr()
        assert max(map(len, shown.out.splitlines()[2:]), default=0) <= 80
        return end.value.code or 0, " ".join(shown.out.split()), shown.err

    return compare


@pytest.fixture
def pair(tmp_path):
    """Three cells, of which B takes half the seconds of two; one fails in B, and one is in either only. An arm."""
    contexts = (512, 1024, 2048)
    a = [row((2.0,) * 12, cell=cell(context=context), versions={"torch": "2.6.0"}) for context in contexts]
    b = [row(cell=cell(context=context), versions={"torch": "2.14.1"}) for context in contexts[:2]]
    b.append(row(status="oom", reason="no", cell=cell(context=2048), versions={"torch": "2.14.1"}))
    losses = {"answer_losses": ((0.5, 12),) * 10}, {"answer_losses": ((0.2, 12),) * 10}
    return (
        record(tmp_path / "a", [*a, row(cell=cell(precision="int4"))], [result(3, **losses[0])]),
        record(tmp_path / "b", [*b, row(cell=cell(precision="int8"))], [result(8, **losses[1])]),
    )


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


def test_an_arm_worse_in_loss_and_better_in_accuracy_has_both_verdicts(run, tmp_path):
    a = record(tmp_path / "a", results=[result(0, tasks=40, answer_losses=((0.2, 12),) * 40)])
    b = record(tmp_path / "b", results=[result(40, tasks=40, answer_losses=((0.9, 12),) * 40)])
    both = "told apart in accuracy or loss (p for their number): n-1 "
    assert both + "(worse in loss, better in accuracy)." in run(a, b)[1]
    assert both + "(better in loss, worse in accuracy)." in run(b, a)[1]


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


def test_the_page_has_no_verdict_of_a_gate_that_cannot_judge(run, tmp_path):
    a, b = record(tmp_path / "a", [row()]), record(tmp_path / "b", [row(cell=cell(device_name="B CPU"))])
    assert run(a, b, "--html", tmp_path / "x.html")[0] == 0
    text = (tmp_path / "x.html").read_text()
    assert "Gate: no verdict:" in text and "are of different devices" in text and "passed" not in text
