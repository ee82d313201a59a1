"""The style that all tables share, and the console that they are printed on."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from harness.text import visible

_RED = dict.fromkeys(("too slow", "too big"), "red")
_YELLOW = dict.fromkeys(("tight", "fits?", "too big?", "unsure"), "yellow")
_VERDICT_COLOURS = {"fits": "green", **_YELLOW, **_RED, "unstable": "magenta"}
_LABEL_WIDTH = 9  # "bf16/ckpt"
_NAMES = ("model", "card")  # columns that make room for the others
_PARTS = "[^- ]*[- ]|[^- ]+"  # of a name


# In a notebook rich would make a picture of every line; there, too, lines are text.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}


@contextmanager
def hindered(name: str) -> Iterator[None]:
    """Where a file that is derived from the record cannot be written: a line on stderr, and the verb goes on."""
    try:
        yield
    except UserError as problem:
        print(f"no {name}: {problem}", file=sys.stderr)


class PlainConsole(Console):
    """A console to which all text is text: no markup, and what would act on the terminal is written out."""

    def __init__(self, **options: Any):
        super().__init__(**_PLAIN | options)

    def render_str(self, text: str, **options: Any) -> Text:
        # Of tables' cells, before they are measured.
        return super().render_str(visible(text), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        # Whatever else comes with text in it; control segments are rich's own.
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def console(quiet: bool = False) -> Console:
    """Standard output for rich: as wide as the terminal, and without a terminal at least 80 columns."""
    # A notebook's kernel calls itself a terminal, but keeps every drawing of a live line.
    kernel: dict[str, Any] = {"force_terminal": False} if "ipykernel" in sys.modules else {}
    out = PlainConsole(quiet=quiet, **kernel)
    # Without a terminal the width may be anything; the tables need 80 columns.
    return out if out.is_terminal else PlainConsole(quiet=quiet, width=max(80, out.width), **kernel)


class PlainTable(Table):
    """A table whose cells are made visible before their widths are measured; where it is too wide, names break."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        shown = [visible(c) if isinstance(c, str) else _visible(c) if isinstance(c, Text) else c for c in cells]
        named = [
            _Name(c if isinstance(c, Text) else Text(c)) if column.header in _NAMES and isinstance(c, str | Text) else c
            for c, column in zip(shown, self.columns, strict=False)
        ]
        super().add_row(*named, *shown[len(named) :], **options)


@dataclass(frozen=True)
class _Name:
    """A name, which rich would break anywhere: "qwen2.5-" and "0.5b", not "qwen2.5-0.5" and "b"."""

    text: Text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        parts = re.findall(_PARTS, self.text.plain) or [""]
        least = min(max(map(cell_len, parts)), options.max_width)
        return Measurement(least, min(max(least, self.text.cell_len), options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        lines = [""]
        for part in re.findall(_PARTS, self.text.plain):
            if lines[-1] and cell_len(lines[-1] + part) > options.max_width:
                lines.append("")
            lines[-1] += part
        yield Text("\n".join(lines), style=self.text.style, overflow="fold")


def _visible(text: Text) -> Text:
    shown = visible(text.plain)
    return text if shown == text.plain else Text(shown, style=text.style)


def plain_table(headings: str) -> Table:
    """A table in the one style of all reports. `headings` are separated by "|"; a "<" before one aligns it left."""
    table = PlainTable(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for heading in headings.split("|"):
        name = heading.removeprefix("<")
        table.add_column(
            name, justify="right" if name == heading else "left", no_wrap=name not in ("also", *_NAMES), overflow="fold"
        )
    return table


def verdict_text(word: str) -> Text:
    """A verdict in its colour."""
    return Text(word, style=_VERDICT_COLOURS.get(word, ""))


def folded(label: str) -> str:
    """A cell's label, "bf16/b8/ckpt-mlp*", in lines of up to nine characters; a longer mark has a line of its own.

    A narrow column of labels leaves room for the model's name.
    """
    first, *marks = label.split("/")
    lines = [first]
    for mark in marks:
        if len(lines[-1]) + 1 + len(mark) <= _LABEL_WIDTH:
            lines[-1] += f"/{mark}"
        else:
            lines.append(f"/{mark}")
    return "\n".join(lines)
