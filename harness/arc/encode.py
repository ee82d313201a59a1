"""Grids as text and back, without loss. Text that is not a grid decodes to None, never to a guess."""

import re
from collections.abc import Callable

from harness.arc.task import LARGEST, Grid

_ROW = re.compile(rf"[0-9]{{1,{LARGEST}}}")


def rows(grid: Grid) -> str:
    """One line of digits per row. One token per cell if the tokenizer splits digits, as Qwen's and arc-tiny's do."""
    return "\n".join("".join(map(str, row)) for row in grid)


def from_rows(text: str) -> Grid | None:
    return _grid(text.strip("\n").split("\n"))


def spaced(grid: Grid) -> str:
    """Digits with spaces: one token per cell even if the tokenizer joins up to three digits, as Llama 3's does."""
    return "\n".join(" ".join(map(str, row)) for row in grid)


def from_spaced(text: str) -> Grid | None:
    lines = text.strip("\n").split("\n")
    # Checked before the spaces go: "12 3" must not become three cells.
    if not all(re.fullmatch(r"[0-9]( [0-9])*", line) for line in lines):
        return None
    return _grid([line.replace(" ", "") for line in lines])


def numbered(grid: Grid) -> str:
    """Each row after its number, from 1, which helps a small model to count rows."""
    return "\n".join(f"{i} {''.join(map(str, row))}" for i, row in enumerate(grid, 1))


def from_numbered(text: str) -> Grid | None:
    lines = text.strip("\n").split("\n")
    parts = [line.split(" ") for line in lines]
    # A wrong number is a wrong answer, not a row to be counted anew.
    if any(len(part) != 2 or part[0] != str(i) for i, part in enumerate(parts, 1)):
        return None
    return _grid([part[1] for part in parts])


def shaped(grid: Grid) -> str:
    """The shape, rows x columns, before the rows: the model decides the size before the cells."""
    return f"{len(grid)}x{len(grid[0])}\n{rows(grid)}"


def from_shaped(text: str) -> Grid | None:
    header, _, rest = text.strip("\n").partition("\n")
    grid = from_rows(rest)
    return grid if grid and header == f"{len(grid)}x{len(grid[0])}" else None


# name -> (encode, decode)
ENCODINGS: dict[str, tuple[Callable[[Grid], str], Callable[[str], Grid | None]]] = {
    "rows": (rows, from_rows),
    "spaced": (spaced, from_spaced),
    "numbered": (numbered, from_numbered),
    "shaped": (shaped, from_shaped),
}


def _grid(lines: list[str]) -> Grid | None:
    if not 1 <= len(lines) <= LARGEST or len({len(line) for line in lines}) != 1:
        return None
    if not all(_ROW.fullmatch(line) for line in lines):
        return None
    return tuple(tuple(map(int, line)) for line in lines)
