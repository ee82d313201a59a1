"""The HTML page of a record: what it holds, what it escapes, and what it needs."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.pages import HOSTILE, NOTHING, arms, folder_of_all_kinds, hostile, many, rows_of_all_kinds
from helpers.records import cell, result
from helpers.records import row as measured
from helpers.tasks import made_tasks

import harness
from harness.cli import app
from harness.records.arm import ROWS as ARMS
from harness.records.cell import Goal
from harness.records.solving import ROWS as SOLVED
from harness.records.store import Store
from harness.report import speed
from harness.report.page import figures
from harness.report.page import tasks as tasks_of
from harness.report.page.judged import MOST_ROWS, Content, Judged
from harness.report.page.render import origin, page, write_page

REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "make-bench-qwen-0.5b"
GOAL = Goal(12, 1000, 400)


def judged(rows, results=(), solved=(), goal=GOAL):
    return Judged.of(Content(folder=Path("results/x"), rows=rows, results=results, solved=solved), goal)


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code or 0, capsys.readouterr()


def test_the_verb_writes_the_reference_record_as_one_page_and_its_pictures(capsys, tmp_path):
    words = ("report", "--results", str(REFERENCE), "--html", "r.html", "--figures", str(tmp_path / "f"))
    assert run(capsys, *words)[0] == 0
    text = Path("r.html").read_text()
    # The verdict with its interval comes first; every cell and the failure's reason are there.
    assert re.search(r"<h1[^>]*>qwen2.5-0.5b bf16 at 512 tokens fits 12 h: 4.63 h \(4.21 to 5.04\)</h1>", text)
    assert text.count("<td>qwen2.5-0.5b") == 6 and "fp16 is emulated here: use bf16" in text
    # Nothing is loaded from elsewhere.
    assert not re.search(r"""(?:src|href)=["'](?!#|data:,)""", text) and "@import" not in text
    assert len(text) < 200_000
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert names == [f"{name}.{kind}" for name in ("hours", "memory-1", "seconds-1") for kind in ("png", "svg")]
    svg = (tmp_path / "f" / "hours.svg").read_text()
    assert "<title>Hours of the whole run</title>" in svg and "qwen2.5-0.5b bf16 512" in svg and "var(--" not in svg
    assert (tmp_path / "f" / "hours.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_record_gives_the_same_page():
    own = judged(*rows_of_all_kinds())
    assert page(own, figures.pictures(own)) == page(own, figures.pictures(own))


def test_every_kind_of_picture_is_drawn_where_the_record_has_it():
    rows, results, solved = rows_of_all_kinds()
    own = judged(rows, results, solved)
    names = [picture.name for picture in figures.pictures(own)]
    assert names == ["hours", "accuracy", "learning-1", "solve-queue", "solve-seconds", "memory-1", "seconds-1"]
    text = page(own, figures.pictures(own))
    # The ids of two pictures are different ones, or a picture would be clipped by another one's frame.
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    # In the page's own colours; as a file in fixed ones.
    assert "var(--s0)" in text and not re.search(r"#0b6bcb", text.partition("</style>")[2])


def test_lines_of_one_label_are_not_drawn_as_one():
    """Random weights and a model's own are two curves; the memory of two devices has one largest."""
    rows = [
        measured((seconds,) * 12, key=f"{name} {context}", device_total_bytes=size << 30,
            cell=cell(context=context, weights=weights, device_name=name))
        for name, weights, seconds, size in (("a", "random", 1.0, 2), ("a", "/model", 2.0, 2), ("b", "random", 1.0, 4))
        for context in (512, 1024)
    ]  # fmt: skip
    rows = [replace(own, key=str(i)) for i, own in enumerate(rows)]
    drawn = {picture.name: picture.inline for picture in figures.pictures(judged(rows))}
    for name in ("memory-1", "seconds-1"):
        assert all(f">{label}<" in drawn[name] for label in ("fp32/random a", "fp32/model a", "fp32/random b"))
    assert "4.0 GiB: the largest of these devices" in drawn["memory-1"]


def test_long_contexts_are_named_on_the_axis_as_they_are():
    rows = [measured(cell=cell(context=context), key=str(context)) for context in (65536, 131072)]
    drawn = {picture.name: picture.inline for picture in figures.pictures(judged(rows))}
    assert all(">131072<" in drawn[name] and "e+05" not in drawn[name] for name in ("memory-1", "seconds-1"))


def test_the_command_on_the_page_is_one_that_a_shell_takes():
    own = judged(NOTHING)
    content = replace(own.content, folder=Path("/some where/$(id)"))
    (command,) = [text for name, text in origin(replace(own, content=content)) if name == "page"]
    assert shlex.split(command)[3] == "/some where/$(id)" and "'" in command


def test_the_budget_stands_as_it_was_given():
    text = page(judged(rows_of_all_kinds()[0], goal=Goal(1234567.5, 1000, 400)), [])
    assert '<output id="budget-text" for="budget">1234568 h</output>' in text and "1.23457e" not in text
    assert "--budget-hours 1234567.5 " in text


def test_a_cell_of_one_sample_has_an_open_interval_everywhere(capsys, tmp_path):
    """Its hours have no end: bars go to the picture's edge, the sentence says why nothing fits, no table fails."""
    few = measured((1.0,), started="2026-01-01T00:00:00+00:00", memory={}, rate=None)
    Store(tmp_path / "r").add(few)
    words = ("--html", str(tmp_path / "x.html"), "--csv", str(tmp_path / "x.csv"), "--format", "pytest-benchmark")
    code, shown = run(capsys, "report", "--results", str(tmp_path / "r"), *words)
    assert code == 0 and "its few samples give no interval" in " ".join(shown.out.split())
    text = (tmp_path / "x.html").read_text()
    assert '<figure id="hours">' in text and "(0.0-inf)" in text and "times as fast" not in text
    # Beside one that is known, and with accuracies.
    both = [few, measured(cell=cell(context=512), key="known")]
    own = judged(both, [result(3)])
    assert {"hours", "accuracy"} <= {picture.name for picture in figures.pictures(own) if picture.inline}


def test_an_empty_record_says_so_in_one_sentence():
    text = page(judged(NOTHING), [])
    assert "<h1" in text and "The record is empty" in text and "<figure" not in text and "<table" not in text


def test_hostile_text_is_only_ever_text():
    rows, results = hostile()
    own = judged(rows, results)
    text = page(own, figures.pictures(own))
    assert "<script>alert" not in text and "<img src=x" not in text and "onerror=alert(1)>" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    # One script is the page's, one is data, and nothing else is run.
    assert len(re.findall("<script", text)) == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert len(data["cells"]) == len(rows) == len(HOSTILE)


def test_the_page_needs_no_torch(tmp_path):
    code = (
        "import sys; from harness.cli import app\n"
        f"sys.argv = ['harness', 'report', '--results', {str(REFERENCE)!r}, '--html', {str(tmp_path / 'p.html')!r}]\n"
        "try: app.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("missing", ["matplotlib", "PIL", "jinja2"])
def test_a_missing_library_is_one_line_with_the_remedy(missing, monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] in (missing, "matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    words = ("report", "--results", str(REFERENCE), "--html", "r.html", "--figures", str(tmp_path / "f"))
    code, shown = run(capsys, *words)
    assert code == 2 and len(shown.err.strip().splitlines()) == 1
    assert "pip install" in shown.err and missing in shown.err


@pytest.mark.parametrize("words", [("--html", "nowhere/r.html"), ("--html", "."), ("--figures", "file")])
def test_what_cannot_be_written_is_refused_in_one_line(words, capsys):
    Path("file").write_text("mine")
    code, shown = run(capsys, "report", "--results", str(REFERENCE), *words)
    assert code == 2 and "cannot be written" in shown.err and len(shown.err.strip().splitlines()) == 1
    assert Path("file").read_text() == "mine"


def test_two_thousand_rows_are_below_two_megabytes(tmp_path):
    own = judged(many(2000))
    write_page(own, tmp_path / "p.html")
    assert (tmp_path / "p.html").stat().st_size < 2_000_000


def test_a_row_without_a_reason_has_an_empty_cell_and_notes_that_are_left_out_are_counted():
    """A cell of blanks has a label of its own on a phone, and is sorted as if it had a value."""
    own = judged(many(200))
    text = page(own, [])
    assert text.count("<td></tr>") == sum(row.ok for row in own.content.rows)
    more = int(re.search(r"<li>(\d+) more: harness report --notes</li>", text)[1])
    assert more == len(speed.notes(own.content.rows, own.runs, own.goal)[0]) - 40 > 0


def test_of_very_many_cells_the_newest_are_shown_and_the_others_counted():
    content = Content.of(Path("x"), many(MOST_ROWS + 7), [])
    text = page(Judged.of(content, GOAL), [])
    assert text.count("<tr>") == MOST_ROWS + 1 and "7 older cells" in text


def test_a_folder_of_arms_or_of_solve_alone_has_a_page_too(capsys, tmp_path):
    folder = folder_of_all_kinds(tmp_path / "all")
    for kind in (ARMS, SOLVED):
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        (alone / kind.name).write_bytes((folder / kind.name).read_bytes())
        assert run(capsys, "report", "--results", str(alone), "--html", "p.html")[0] == 0
        (alone / kind.name).unlink()
        assert "<h1" in Path("p.html").read_text()
    code, shown = run(capsys, "report", "--results", str(alone), "--html", "p.html")
    assert code == 2 and "cannot be read" in shown.err


def test_a_number_that_is_none_is_null_for_the_script():
    rows, _, _ = rows_of_all_kinds()
    odd = replace(rows[0], key="odd", losses=(float("nan"),))
    text = page(judged([odd]), [])
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1], parse_constant=pytest.fail)
    assert data["cells"][0]["word"] == "unstable"


def test_arms_that_failed_stand_with_their_reason():
    text = page(judged(rows_of_all_kinds()[0], arms()), [])
    assert "ran out of &lt;memory&gt;" in text and "n-1" in text


def test_answers_are_drawn_in_arcs_colours_beside_the_truth_where_the_tasks_are_at_hand():
    rows, results, _ = rows_of_all_kinds()
    tasks, solutions = made_tasks(20)
    alone = tasks_of.shown(judged(rows, results))
    assert "are not at hand" in alone.sentence and [card.status for card in alone.cards] == ["solved", "solved"]
    at_hand = Content(folder=Path("x"), rows=rows, results=results, tasks=(tasks, solutions))
    shown = tasks_of.shown(Judged.of(at_hand, GOAL))
    first = shown.cards[0]
    assert [label for label, _ in first.rows[0]] == ["input", "attempt 1: wrong", "attempt 2: wrong", "truth"]
    assert len(first.demonstrations) == 3 and "Dots mark wrong cells" in shown.sentence
    assert [card.status for card in shown.cards] == ["wrong", "wrong"] and "(18 more have none)" in shown.sentence
    # What is drawn is the grid.
    for row in first.demonstrations:
        pair = tasks[0].demonstrations[first.demonstrations.index(row)]
        for (_, svg), grid in zip(row, (pair.input, pair.output), strict=True):
            assert painted(svg) == grid
    text = page(Judged.of(at_hand, GOAL), [])
    assert 'class="grid"' in text and ".k7{fill:#FF851B}" in text


def painted(svg):
    """The colours that an SVG of `tasks.svg` shows: the later path covers the earlier."""
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    cells = [[None] * width for _ in range(height)]
    for colour, path in re.findall(r'class="k(\d)" d="([^"]+)"', svg):
        for x, y, run, down in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h", path):
            for line in range(int(y), int(y) + int(down)):
                cells[line][int(x) : int(x) + int(run)] = [int(colour)] * int(run)
    return tuple(map(tuple, cells))


def test_a_record_cannot_name_a_file_to_be_opened(tmp_path):
    rows, results, _ = rows_of_all_kinds()
    secret = tmp_path / "t.json"
    secret.write_text("{}")
    named = [replace(r, spec=replace(r.spec, dataset=str(secret))) for r in results]
    secret.chmod(0)
    assert "not at hand" in tasks_of.shown(judged(rows, named)).sentence


def test_a_notebook_writes_the_page_of_a_loaded_record():
    harness.load(REFERENCE, budget_hours=1).write_page("p.html")
    assert "No measured cell fits 1 h" in Path("p.html").read_text()
    # With what was left out, as the command line's.
    Store(Path("r")).add(measured())
    with (Path("r") / "records.jsonl").open("a") as file:
        file.write("torn\n")
    harness.load("r").write_page("p.html")
    assert "1 corrupt lines were left out" in Path("p.html").read_text()
