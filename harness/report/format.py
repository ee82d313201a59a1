"""Numbers and words as a person reads them, and as a spreadsheet may safely open them."""

import math

GIB = 2**30


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` figures, without an exponent; '-' for none."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def hours(low: float, mid: float, high: float) -> str:
    """ "6.1 (5.8-6.5)": as many decimals for the ends as for the middle."""
    decimals = 0 if mid >= 20 else 1 if mid >= 2 else 2 if mid >= 0.1 else 3
    return f"{mid:.{decimals}f} ({low:.{decimals}f}-{high:.{decimals}f})"


def millions(params: float | None) -> str:
    """Millions of parameters, whole from ten on."""
    return "-" if not params else f"{params:.0f}" if params >= 10 else number(params, 2)


def gib(count: int | None) -> str:
    return "-" if count is None else f"{count / GIB:.1f}"


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def thousands(tokens: int) -> str:
    """A window in k tokens, as model cards say it: 32768 is 32."""
    return f"{tokens / 1024:.3g}"


def safe_cell(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula (OWASP, CSV injection), on one line."""
    text = " ".join(text.split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
