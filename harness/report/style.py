"""The style that all tables share, and the console that they are printed on."""

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Column = tuple[str, Literal["left", "right"]]  # heading and side
_LABEL_WIDTH = 9  # "bf16/ckpt"


def console(quiet: bool = False) -> Console:
    """Standard output for rich: as wide as the terminal, and without a terminal at least 80 columns."""
    # Without a terminal the width may be anything; the tables need 80 columns.
    out = Console(highlight=False, quiet=quiet)
    return out if out.is_terminal else Console(highlight=False, quiet=quiet, width=max(80, out.width))


def plain_table(*columns: Column) -> Table:
    """A table of `columns` in the one style of all reports."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=name not in ("also", "model"), overflow="fold")
    return table


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
