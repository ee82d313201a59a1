"""The page that a run leaves in its results folder: of all that is there, and at no cost to the run."""

import re
import sys

import pytest
from helpers.pages import folder_of_all_kinds

from harness.records.arm import ROWS as ARMS
from harness.records.cell import Goal
from harness.records.solving import ROWS as SOLVED
from harness.report.page.beside import write_beside

GOAL = Goal(12, 1000, 400)


@pytest.fixture
def folder(tmp_path):
    return folder_of_all_kinds(tmp_path / "all")


def test_what_a_run_leaves_behind_has_all_that_is_in_its_folder(folder, tmp_path):
    assert write_beside(folder, GOAL) == folder / "report.html"
    text = (folder / "report.html").read_text()
    for name in ("hours", "learning-1", "solve-queue", "memory-1"):
        assert f'<figure id="{name}">' in text
    # Of a folder that one verb alone has written.
    for kind, headline in ((ARMS, "+ color swap: 55.0 % of 20 tasks (34 to 74 %)"), (SOLVED, "0 of 12 tasks")):
        alone = tmp_path / kind.name
        alone.mkdir()
        (alone / kind.name).write_bytes((folder / kind.name).read_bytes())
        write_beside(alone, GOAL)
        assert headline in re.search("<h1[^>]*>(.*?)</h1>", (alone / "report.html").read_text())[1]


@pytest.mark.parametrize(
    ("missing", "line", "written"),
    [("matplotlib", "report.html is without pictures: pictures need matplotlib", True),
     ("jinja2", "no report.html: the page needs jinja2", False)],
)  # fmt: skip
def test_a_run_that_is_done_ends_well_without_the_libraries_of_the_page(
    folder, missing, line, written, monkeypatch, capsys
):
    for name in [name for name in sys.modules if name.split(".")[0] in (missing, "matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert bool(write_beside(folder, GOAL)) == written == (folder / "report.html").exists()
    shown = capsys.readouterr()
    assert line in shown.err and len(shown.err.strip().splitlines()) == 1


def test_a_page_that_cannot_be_written_costs_a_run_nothing(folder, capsys):
    (folder / "report.html").mkdir()
    assert write_beside(folder, GOAL) is None
    assert "no report.html" in capsys.readouterr().err
