"""Which cells of a record `calibrate` fits on."""

from helpers.records import cell, row

from harness.cli.calibrate import _undisturbed
from harness.records.measurement import CROWDED


def test_cells_that_others_slowed_down_are_left_out_and_counted(capsys):
    quiet, slowed = row(cell=cell(context=256)), row(cell=cell(context=512), notes=[CROWDED])
    failed = row(cell=cell(context=1024), status="oom", reason="no", notes=[CROWDED])
    assert _undisturbed([quiet, slowed, failed]) == [quiet]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "1 cells were timed while others used their cores and are left out; measure them again with --fresh"
    assert _undisturbed([quiet]) == [quiet]
    assert not capsys.readouterr().err


def test_where_all_were_slowed_down_they_count_and_it_is_said(capsys):
    slowed = [row(cell=cell(context=n), notes=[CROWDED]) for n in (256, 512)]
    assert _undisturbed(slowed) == slowed
    assert "2 cells were timed while others used their cores, all there are" in capsys.readouterr().err
