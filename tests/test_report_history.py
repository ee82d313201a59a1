"""Cells over all records that lie beside each other."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.records import cell, row

from harness.analysis.history import histories
from harness.cli import app
from harness.records.cell import ModelSpec
from harness.records.history import read_beside
from harness.records.measurement import CROWDED
from harness.records.store import Store
from harness.report.page.history import pictures


def measured(seconds, day, **changes):
    return row((seconds,) * 12, key=f"k{day}", started=f"2025-01-{day:02}T00:00:00+00:00", **changes)


@pytest.fixture
def folders(tmp_path):
    """A cell at 1 s in January's first days and, by another torch, at 1.5 s later; another one that stays as it is; a
    third on another device."""
    other = cell(model=ModelSpec("other", {}, 4096))
    here, there = Store(tmp_path / "old"), Store(tmp_path / "new")
    here.add(measured(1.0, 1, versions={"torch": "2.13.0"}, commit="aaaa"))
    here.add(replace(measured(2.0, 1), key="o1", cell=other))
    there.add(measured(1.01, 3, versions={"torch": "2.13.0"}, commit="aaaa"))
    there.add(measured(1.5, 9, versions={"torch": "2.14.1"}, commit="bbbb"))
    there.add(replace(measured(2.0, 9), key="o9", cell=other))
    there.add(replace(measured(0.1, 9), key="c9", cell=cell(device_name="a card")))
    return tmp_path


def test_a_cell_is_followed_through_all_records_and_what_changed_is_named(folders):
    rows, files = read_beside(folders / "new")
    assert len(files) == 2 and len(rows) == 6
    first, second = histories(rows)
    assert [moment.step_s for moment in first.moments] == [16.0, 16.16, 24.0]
    low, middle, high = first.change
    assert low < 1.5 == middle < high and first.changed
    assert first.differences == ["torch 2.13.0, then 2.14.1", "commit aaaa, then bbbb"]
    # The other device's row is no part of it, and a cell of one measurement has no history.
    assert second.row.cell.model.name == "other" and second.change[1] == 1.0 and not second.changed


def test_a_machine_that_others_used_and_another_driver_are_named():
    quiet = measured(1.0, 1, environment={"driver": "550"})
    busy = measured(2.0, 9, environment={"driver": "570"}, kernels="attention=sdpa", notes=(CROWDED,))
    (history,) = histories([quiet, busy])
    assert history.differences == [
        "driver 550, then 570", "kernels none, then attention=sdpa", "timed while others used the cores no, then yes"
    ]  # fmt: skip


def test_two_cells_of_one_label_are_two_lines():
    """Random weights and a model's own, in one precision and context."""
    rows = [
        replace(measured(seconds, day), key=f"{weights}{day}", cell=cell(weights=weights))
        for weights, seconds in (("random", 1.0), ("/model", 2.0))
        for day in (1, 9)
    ]
    (picture,) = pictures(histories(rows), 1)
    assert "of 2 cells" in picture.alt and "fp32 1024 (2)" in picture.inline


def test_report_prints_it_and_draws_it(folders, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["report", "--results", str(folders / "new"), "--history", "--html", "h.html"])
    out = " ".join(capsys.readouterr().out.split())
    assert not end.value.code
    assert "tiny fp32 1024 3 25-01-01 25-01-09 16.0 24.0 1.50" in out
    assert "tiny fp32 1024: 1.50 times the first; torch 2.13.0, then 2.14.1" in out
    text = Path("h.html").read_text()
    assert '<figure id="history-1">' in text and "commit bbbb, torch 2.14.1" in text


def test_one_record_alone_says_so_in_a_sentence(folders, capsys):
    alone = Store(folders / "far" / "one")
    alone.add(measured(1.0, 1))
    with pytest.raises(SystemExit) as end:
        app.main(["report", "--results", str(folders / "far" / "one"), "--history"])
    assert not end.value.code
    assert "no cell was measured twice in 1 record " in " ".join(capsys.readouterr().out.split())


def test_times_that_are_none_are_left_out():
    rows = [measured(1.0, 1), replace(measured(1.0, 2), started="yesterday"), replace(measured(1.0, 3), started="")]
    assert histories(rows) == []
