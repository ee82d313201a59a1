"""Numbers, durations and sizes as text for a person, and texts that a spreadsheet may safely open."""

import math
from collections.abc import Sequence

from harness.records.cell import Cell
from harness.text import visible

GIB = 2**30
_FORMULA = ("=", "+", "-", "@", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width ones


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` figures, without an exponent; '-' for none."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def hours(low: float, mid: float, high: float) -> str:
    """ "6.1 (5.8-6.5)": the middle and both ends, all with as many decimals as the middle needs."""
    decimals = 0 if mid >= 20 else 1 if mid >= 2 else 2 if mid >= 0.1 else 3
    return f"{mid:.{decimals}f} ({low:.{decimals}f}-{high:.{decimals}f})"


def millions(params: float | None) -> str:
    """Millions of parameters, whole from ten on."""
    return "-" if not params else f"{params:.0f}" if params >= 10 else number(params, 2)


def gib(count: int | None) -> str:
    """`count` bytes in GiB; '-' for none."""
    return "-" if count is None else f"{count / GIB:.1f}"


def duration(seconds: float) -> str:
    """ "59 s", "1 min 01 s" or "1 h 01 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def thousands(tokens: int) -> str:
    """Tokens in units of 1024, as model cards give a maximum context: 32768 is 32."""
    return f"{tokens / 1024:.3g}"


def cell_name(cell: Cell) -> str:
    """A cell in words: "qwen2.5-0.5b int4 2048"."""
    return f"{cell.model.name} {cell.label} {cell.context}"


def safe_cell(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula (OWASP, CSV injection), on one line."""
    text = visible(" ".join(text.split()))
    return f"'{text}" if text[:1] in _FORMULA else text


def unlike(labels: Sequence[str]) -> list[str]:
    """`labels` with a number after those that were there before, so that no line stands for two."""
    made: list[str] = []
    for label in labels:
        again, name = 2, label
        while name in made:
            name, again = f"{label} ({again})", again + 1
        made.append(name)
    return made
