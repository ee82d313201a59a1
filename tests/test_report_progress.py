"""Progress: one live line where the cursor can be moved, plain lines elsewhere."""

import io
import re

import pytest
from helpers.records import cell, row
from rich.console import Console

from harness.report.progress import ProgressLine


@pytest.fixture(params=["file", "dumb", "xterm"])
def console(request, monkeypatch):
    """Where progress is written: a file, a terminal that cannot move its cursor, and one that can."""
    monkeypatch.setenv("TERM", "xterm" if request.param == "file" else request.param)
    terminal = request.param != "file"
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, highlight=False, color_system=None)


def _is_live(console):
    return console.is_terminal and not console.is_dumb_terminal


def _texts(console):
    """What was written; plain lines alone where the console cannot move its cursor."""
    text = console.file.getvalue()
    assert _is_live(console) or not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    return text


def test_progress_of_a_sweep(console):
    with ProgressLine(console, goal_steps=500) as progress:
        progress.note("looking at the device ...")
        progress.begin("a CPU", 2)
        progress.cell(1, cell(), 30.0, 45.0)
        progress.phase({"phase": "sampling", "micro_step_s": 1.5})
        progress.row(row((1.0, 1.01, 0.99) * 8), measured=True)
        progress.row(row(status="oom", reason="CUDA out of memory"), measured=True)
    text = _texts(console)
    assert "looking at the device ...\n" in text and "a CPU: 2 cells\n" in text
    assert "1 min 15 s" in text
    assert "3.75 steps/min, 500 steps in 2.22 h\n" in text
    assert "oom: CUDA out of memory" in text


def test_cells_at_work_beside_each_other_are_told_apart(console):
    seconds = 0.0
    with ProgressLine(console, clock=lambda: seconds) as progress:
        progress.begin("2 cards", 3)
        progress.cell(1, cell(context=256), 30.0, 60.0)
        progress.cell(2, cell(context=512), 40.0, 20.0)
        seconds += 5
        progress.phase({"phase": "load", "cell": 1})
        assert [work.phase for work in progress.at_work.values()] == ["load", "start"]
        progress.row(row(cell=cell(context=256)), measured=True)
        seconds += 5
        progress.phase({"phase": "sampling", "cell": 1})  # a late word of a cell that is done
        progress.phase({"phase": "warm-up", "cell": 2})
        assert [(work.number, work.phase) for work in progress.at_work.values()] == [(2, "warm-up")]
    text = _texts(console)
    if _is_live(console):
        assert "1/3 tiny fp32 256 (+1): load" in text and "2/3 tiny fp32 512: warm-up" in text
        assert "55 s left" in text and "50 s left" in text


def test_cells_of_two_kinds_of_card_have_a_phase_each_and_rows_count_as_done(console):
    """Both kinds have a first cell; what comes from the record counts as done, though it was never begun."""
    first, second = (cell(device_name=name) for name in ("Tesla T4", "NVIDIA L4"))
    with ProgressLine(console, clock=lambda: 0.0) as progress:
        progress.begin("Tesla T4", 4)
        progress.begin("NVIDIA L4", 2)
        for context in (2048, 4096):
            progress.row(row(cell=cell(context=context, device_name="Tesla T4")), measured=False)
        progress.cell(1, first, 30.0, 0.0)
        progress.cell(1, second, 30.0, 0.0)
        if _is_live(console):
            (bar,) = progress.bar.tasks
            assert (bar.completed, bar.total) == (2, 6)
        progress.phase({"phase": "warm-up", "cell": 1, "device": "NVIDIA L4"})
        progress.phase({"phase": "load", "cell": 1, "device": "Tesla T4"})
        assert [work.phase for work in progress.at_work.values()] == ["load", "warm-up"]


def test_an_adapter_per_task_has_time_left_over_all_tasks(console):
    """Ten tasks of four steps a second each, and two answers of two seconds: 8 s per task, 80 in all."""
    seconds = 0.0
    with ProgressLine(console, clock=lambda: seconds) as progress:
        for task in range(10):
            for step in range(1, 5):
                seconds += 1.0
                progress.step("n-1", 4 * task + step, 40, 0.5)
            for done in (1, 2):
                seconds += 2.0
                progress.answers(done, 2)
    text = _texts(console)
    if _is_live(console):
        assert "n-1: step 7 of 40, loss 0.500" in text
        return
    lines = text.splitlines()
    assert len(lines) == 6 and lines[0] == "n-1: step 7 of 40, loss 0.500, about 55 s left"


def test_progress_of_fine_tuning(console):
    """A step a second: 30 steps, then 30 more of another arm, then 40 answers at four a second.

    Without a live line the k-th line of a loop is printed 10 k seconds after its first call, and none for its end:
    10 of the 29 seconds that 30 steps take after the first one leave 19.
    """
    seconds = 0.0
    with ProgressLine(console, clock=lambda: seconds) as progress:
        for arm in ("n-1", "n-1 + geometric"):
            progress.note(f"{arm} begins")
            for step in range(1, 31):
                progress.step(arm, step, 30, 0.5)
                seconds += 1.0
        for done in range(1, 41):
            progress.answers(done, 40)
            seconds += 0.25
    text = _texts(console)
    if _is_live(console):
        assert "n-1: step 11 of 30, loss 0.500" in text and "19 s left" in text
        assert "1 of 40 questions answered" in text
        return
    assert text.splitlines() == [
        "n-1 begins",
        "n-1: step 11 of 30, loss 0.500, about 19 s left",
        "n-1: step 21 of 30, loss 0.500, about 9 s left",
        "n-1 + geometric begins",
        "n-1 + geometric: step 11 of 30, loss 0.500, about 19 s left",
        "n-1 + geometric: step 21 of 30, loss 0.500, about 9 s left",
    ]


def test_progress_of_answers_is_plain_text_every_ten_seconds():
    """40 answers at 0.5 s: the 21st is 10 s after the first, and 19 are left. A second run of the loop starts anew."""
    console, seconds = Console(file=io.StringIO(), width=80), 0.0
    with ProgressLine(console, clock=lambda: seconds) as progress:
        for _ in range(2):
            for done in range(1, 41):
                progress.answers(done, 40)
                seconds += 0.5
    assert console.file.getvalue().splitlines() == ["21 of 40 questions answered, about 10 s left"] * 2


def test_progress_of_a_count(console):
    """Two of eight in 6 s: 18 s are left. Without a live line the total is printed once, whatever is counted later, and
    every ten seconds how far it is."""
    seconds = 0.0
    with ProgressLine(console, clock=lambda: seconds) as progress:
        for _ in range(2):
            for done in range(9):
                progress.count("tracing", done, 8)
                seconds += 3.0
    text = _texts(console)
    if _is_live(console):
        assert "tracing 0 of 8" in text and "tracing 2 of 8" in text and "18 s left" in text
    else:
        assert text == "tracing 8 ...\n" + 2 * "tracing 4 of 8, about 12 s left\n"


def test_progress_leaves_no_live_line_behind(console):
    """Before the first loop nothing is drawn; after it the terminal's line is erased (CSI 2K)."""
    with ProgressLine(console) as progress:
        assert not console.file.getvalue()
        progress.count("tracing", 0, 1)
        progress.count("tracing", 1, 1)
        if _is_live(console):
            assert console.file.getvalue().endswith("\x1b[2K")
        before = console.file.getvalue()
    assert console.file.getvalue() == before
