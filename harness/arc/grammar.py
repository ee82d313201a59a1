"""Which characters may follow within an encoded grid, so that a decoder can write nothing else (harness.arc.encode)."""

import re
from collections.abc import Callable
from typing import NamedTuple

from harness.arc.task import LARGEST

ALPHABET = "0123456789 x\n"  # of all encodings
_DIGITS = frozenset("0123456789")
_SIDE = r"(?:[1-9]|[12][0-9]|30)"
_SHAPE = re.compile(rf"{_SIDE}(?:x{_SIDE}?)?")  # and what can become one


class Written(NamedTuple):
    """What of a grid is written: whole rows, cells of the current row, and the sides where they are decided (else 0).

    `head` is the beginning of the row's number or of the shape; `gap`: a space stands after the last cell.
    """

    rows: int = 0
    cells: int = 0
    width: int = 0
    height: int = 0
    head: str = ""
    gap: bool = False

    @property
    def whole(self) -> bool:
        """Whether the grid may end here: its last row is as wide as the others, and there are as many as announced."""
        return bool(self.cells) and self.width in (0, self.cells) and self.height in (0, self.rows + 1) and not self.gap


def _rows(written: Written, character: str) -> Written | None:
    if character in _DIGITS:
        return written._replace(cells=written.cells + 1) if written.cells < (written.width or LARGEST) else None
    row_ends = written.cells and written.width in (0, written.cells)
    if character == "\n" and row_ends and written.rows + 1 < (written.height or LARGEST):
        return written._replace(rows=written.rows + 1, cells=0, width=written.cells)
    return None


def _spaced(written: Written, character: str) -> Written | None:
    if character == " ":
        more = 0 < written.cells < (written.width or LARGEST)
        return written._replace(gap=True) if more and not written.gap else None
    # A space stands between two cells, and nowhere else.
    if written.gap != (character in _DIGITS and written.cells > 0):
        return None
    return _rows(written._replace(gap=False), character)


def _numbered(written: Written, character: str) -> Written | None:
    number, head = f"{written.rows + 1} ", written.head + character
    if written.head != number:
        return written._replace(head=head) if number.startswith(head) else None
    after = _rows(written, character)
    return after._replace(head="") if after and character == "\n" else after


def _shaped(written: Written, character: str) -> Written | None:
    if written.height:
        return _rows(written, character)
    if character != "\n":
        head = written.head + character
        return written._replace(head=head) if _SHAPE.fullmatch(head) else None
    height, _, width = written.head.partition("x")
    return Written(width=int(width), height=int(height)) if width else None


# name of the encoding -> (what is written, the next character) -> what is written then; None where it may not follow
GRAMMARS: dict[str, Callable[[Written, str], Written | None]] = {
    "rows": _rows,
    "spaced": _spaced,
    "numbered": _numbered,
    "shaped": _shaped,
}


def after(encoding: str, written: Written, text: str) -> Written | None:
    """What is written after `text` too; None where no grid goes on so."""
    advance, state = GRAMMARS[encoding], written
    for character in text:
        following = advance(state, character)
        if following is None:
            return None
        state = following
    return state


def may_end(encoding: str, written: Written) -> bool:
    """Whether what is written is a whole grid."""
    return written.whole and (encoding != "shaped" or written.height > 0)
