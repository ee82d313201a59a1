"""Numbers, durations and sizes as text for a person, and texts that a spreadsheet may safely open."""

from collections.abc import Sequence

from harness.digits import fixed, number, rounded
from harness.records.cell import Cell
from harness.text import visible

GIB = 2**30
_FORMULA = ("=", "+", "-", "@", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width ones


def hours(low: float, mid: float, high: float) -> str:
    """ "6.1 (5.8-6.5)": the middle and both ends, all with as many decimals as the middle needs."""
    decimals = 0 if mid >= 20 else 1 if mid >= 2 else 2 if mid >= 0.1 else 3
    return f"{fixed(mid, decimals)} ({fixed(low, decimals)}-{fixed(high, decimals)})"


def ratio(value: float) -> str:
    """How many times something is another: "1.25", and to three figures below a hundredth."""
    return fixed(value, 2) if value >= 0.01 else number(value)


def millions(params: float | None) -> str:
    """Millions of parameters, whole from ten on."""
    return "-" if not params else fixed(params) if params >= 10 else number(params, 2)


def gib(count: int | None) -> str:
    """`count` bytes in GiB; '-' for none."""
    return "-" if count is None else fixed(count / GIB, 1)


def duration(seconds: float) -> str:
    """ "59 s", "1 min 01 s" or "1 h 01 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 6e7 else f"{number(seconds / 3600)} h"


def thousands(tokens: int) -> str:
    """Tokens in units of 1024, as model cards give a maximum context: 32768 is 32."""
    return rounded(tokens / 1024)


def cell_name(cell: Cell, mark: str = "") -> str:
    """A cell in words: "qwen2.5-0.5b int4 2048"; `mark` stands behind the precision."""
    return f"{cell.model.name} {cell.label}{mark} {cell.context}"


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
