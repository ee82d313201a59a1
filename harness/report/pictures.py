"""A model's answers beside the true outputs: one SVG per ARC task, or coloured digits in the terminal."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.arc.encode import from_rows
from harness.arc.score import same_shape
from harness.arc.task import Grid, Solutions, Task
from harness.files import replace_atomically
from harness.records.arm import Attempts
from harness.report import svg
from harness.report.svg import COLOURS, INK, Panel
from harness.text import visible


class TestInput(NamedTuple):
    """A test input, the outputs tried, and the true output where it is known."""

    grid: Grid
    tried: tuple[Grid, ...]
    truth: Grid | None


def write_pictures(
    folder: Path, tasks: Sequence[Task], attempts: Attempts, solutions: Solutions, title: str, most: int
) -> list[Path]:
    """Draws the first `most` tasks, each into an SVG of its own in `folder`, made if needed; returns their paths.

    A task that `attempts` lacks has no answer, one that `solutions` lacks no verdict. A file is replaced whole or not
    at all. Raises UserError where `folder` cannot be written, ValueError for attempts at more than the test inputs.
    """
    paths = []
    for task in tasks[: max(0, most)]:
        paths.append(folder / f"{_slug(task.id)}.svg")
        picture = _picture(task, test_inputs(task, attempts, solutions), title)
        replace_atomically(paths[-1], picture, make_folder=True)
    return paths


def show_grids(tasks: Sequence[Task], attempts: Attempts, solutions: Solutions, out: Console, most: int) -> None:
    """Prints the first `most` tasks: each test input, the first attempt and the truth, beside each other if they fit.

    A cell is two columns wide, its digit on its colour; wrong ones are bold and underlined. Without colours the digits
    stay. Raises ValueError for attempts at more than the test inputs.
    """
    for task in tasks[: max(0, most)]:
        tests = test_inputs(task, attempts, solutions)
        out.print(Text(f"\n{printable(task.id)}: {status_of(tests)}", style="bold"))
        for number, test in enumerate(tests, 1):
            if number > 1:
                out.print()
            name = f"test input {number}" if len(tests) > 1 else "test input"
            question, attempt, *_, truth = panels_of(name, test)
            # Only the first attempt is shown; its label says so where a later one is right.
            if test.truth in test.tried and attempt.grid != test.truth:
                label = f"{attempt.label} ({test.tried.index(test.truth) + 1}: right)"
                attempt = attempt._replace(label=label)
            _beside([question, attempt._replace(truth=test.truth), truth], out)


def test_inputs(task: Task, attempts: Attempts, solutions: Solutions) -> list[TestInput]:
    count = len(task.test_inputs)
    tried = [tuple(grid for text in texts if (grid := from_rows(text))) for texts in attempts.get(task.id, ())]
    truths = solutions.get(task.id, (None,) * count)
    if len(tried) > count:
        raise ValueError(f"{task.id}: attempts at {len(tried)} test inputs, of which there are {count}")
    tried += [()] * (count - len(tried))
    return [TestInput(*test) for test in zip(task.test_inputs, tried, truths, strict=True)]


def status_of(tests: Sequence[TestInput]) -> str:
    """The task in words; as in `TaskScore` it is solved only where every test input has its output among the tried."""
    if not any(test.tried for test in tests):
        return "no answer"
    if any(test.truth is None for test in tests):
        return "truth unknown"
    right = sum(test.truth in test.tried for test in tests)
    return "solved" if right == len(tests) else f"wrong ({right} of {len(tests)} right)" if right else "wrong"


def panels_of(name: str, test: TestInput) -> list[Panel]:
    """The panels of one test input: the input, every attempt (or that there is none), and the truth."""
    panels = [Panel(name, test.grid)]
    for number, grid in enumerate(test.tried, 1):
        verdict = ""
        if test.truth is not None:
            verdict = (
                ": right" if grid == test.truth else ": wrong" if same_shape(grid, test.truth) else ": wrong shape"
            )
        panels.append(Panel(f"attempt {number}{verdict}", grid, test.truth))
    if not test.tried:
        panels.append(Panel("no answer", None))
    return [*panels, Panel("truth" if test.truth else "truth unknown", test.truth)]


def printable(text: str) -> str:
    """`text` on one visible line: XML forbids what a terminal obeys."""
    return visible(" ".join(text.split()))


def _digits(panel: Panel, width: int) -> Text:
    """The grid in at most `width` columns: two per cell, or one if need be, or else words."""
    grid, wrong, digits = panel.grid, panel.wrong_cells, Text()
    if grid is None:
        return digits
    if len(grid[0]) > width:
        return Text(f"{len(grid)} x {len(grid[0])} cells, too wide")
    pad = " " if 2 * len(grid[0]) <= width else ""
    for y, row in enumerate(grid):
        digits.append("\n" if y else "")
        for x, colour in enumerate(row):
            style = f"{INK[colour]} on {COLOURS[colour]}"
            digits.append(pad, style)
            digits.append(str(colour), f"bold underline {style}" if (y, x) in wrong else style)
    return digits


def _beside(panels: Sequence[Panel], out: Console) -> None:
    """Prints the grids, each under its label, beside each other, or below each other if `out` is too narrow."""
    # Beside each other only if all grids and labels fit whole.
    columns = [(panel.label, _digits(panel, out.width)) for panel in panels]
    widths = [max(map(len, (label, *grid.plain.split("\n")))) for label, grid in columns]
    if sum(widths) + 3 * (len(widths) - 1) > out.width:
        for label, grid in columns:
            out.print(Text(label))
            if grid.plain:
                out.print(grid)
        return
    table = Table.grid(padding=(0, 3, 0, 0))
    for width in widths:
        table.add_column(min_width=width, no_wrap=True)
    table.add_row(*(Text(label) for label, _ in columns))
    table.add_row(*(grid for _, grid in columns))
    out.print(table)


def _picture(task: Task, tests: Sequence[TestInput], title: str) -> str:
    """The task as an SVG document."""
    demonstrations = [
        [Panel(f"input {number}", pair.input), Panel("output", pair.output)]
        for number, pair in enumerate(task.demonstrations, 1)
    ]
    rows = [panels_of(f"input {number}" if len(tests) > 1 else "input", test) for number, test in enumerate(tests, 1)]
    name = printable(task.id)
    return svg.document(name, f"{name}: {status_of(tests)}", printable(title), demonstrations, rows)


def _slug(name: str) -> str:
    """A file name for the task: itself where that is safe everywhere, else what is safe of it and a hash."""
    if re.fullmatch(r"[a-z0-9_-]{1,64}", name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:48] or 'task'}-{digest}"
