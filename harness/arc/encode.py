"""Grids as text and back. Encoding loses nothing; text that is no grid decodes to None, never to a guess."""

import re
from collections.abc import Callable

from harness.arc.task import LARGEST, Grid

_ROW = re.compile(rf"[0-9]{{1,{LARGEST}}}")


def rows(grid: Grid) -> str:
    """A line of digits a row. One token a cell where the tokenizer splits digits, as Qwen's and arc-tiny's do."""
    return "\n".join("".join(map(str, row)) for row in grid)


def from_rows(text: str) -> Grid | None:
    return _grid(text.strip("\n").split("\n"))


def spaced(grid: Grid) -> str:
    """Digits with a space between: one token a cell also where the tokenizer joins up to three digits, as Llama 3's."""
    return "\n".join(" ".join(map(str, row)) for row in grid)


def from_spaced(text: str) -> Grid | None:
    lines = text.strip("\n").split("\n")
    if not all(re.fullmatch(r"[0-9]( [0-9])*", line) for line in lines):
        return None
    return _grid([line.replace(" ", "") for line in lines])


def numbered(grid: Grid) -> str:
    """Each row after its number, from 1: a small model keeps count of rows by it."""
    return "\n".join(f"{i} {''.join(map(str, row))}" for i, row in enumerate(grid, 1))


def from_numbered(text: str) -> Grid | None:
    lines = text.strip("\n").split("\n")
    parts = [line.split(" ") for line in lines]
    if any(len(part) != 2 or part[0] != str(i) for i, part in enumerate(parts, 1)):
        return None
    return _grid([part[1] for part in parts])


def shaped(grid: Grid) -> str:
    """The shape first, rows x columns: the answer's size is decided before its cells are."""
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
