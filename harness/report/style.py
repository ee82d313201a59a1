"""The style that all tables share, and the console that they are printed on."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_RED, _YELLOW = dict.fromkeys(("too slow", "too big"), "red"), dict.fromkeys(("tight", "fits?", "unsure"), "yellow")
_VERDICT_COLOURS = {"fits": "green", **_YELLOW, **_RED, "unstable": "magenta"}
_LABEL_WIDTH = 9  # "bf16/ckpt"


def console(quiet: bool = False) -> Console:
    """Standard output for rich: as wide as the terminal, and without a terminal at least 80 columns."""
    # Without a terminal the width may be anything; the tables need 80 columns.
    out = Console(highlight=False, quiet=quiet)
    return out if out.is_terminal else Console(highlight=False, quiet=quiet, width=max(80, out.width))


def plain_table(headings: str) -> Table:
    """A table in the one style of all reports. `headings` are separated by "|"; a "<" before one aligns it left."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for heading in headings.split("|"):
        name = heading.removeprefix("<")
        table.add_column(
            name, justify="right" if name == heading else "left", no_wrap=name not in ("also", "model"), overflow="fold"
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
