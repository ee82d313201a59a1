"""Numbers as text for a person: without an exponent and never longer than a table's column, however large or small."""

import math

_LONG = 999_999.5  # from here on a number is written in millions, thousands of millions ...
_UNITS = (("M", 1e6), ("G", 1e9), ("T", 1e12))
_MOST, _LEAST = 999.5e12, 1e-4  # beyond these only that it is so


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` figures: "0.0125", "12.5", "125000", "1.25M"; "<0.0001" and ">999T" beyond, "-" for none."""
    if value is None:
        return "-"
    if value < 0:
        text = number(-value, digits)
        return f"{'>' if text[0] == '<' else '<'}-{text[1:]}" if text[0] in "<>" else f"-{text}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if value < _LEAST or value >= _MOST:
        return f"<{_LEAST}" if value < 1 else ">999T"
    name, unit = "", 1.0
    if value >= _LONG:
        name, unit = [pair for pair in _UNITS if value >= 0.9995 * pair[1]][-1]
    # The exponent of what is shown: 9.996 is 10.0.
    exponent = int(f"{value / unit:.{digits - 1}e}".partition("e")[2])
    return f"{value / unit:.{max(0, digits - 1 - exponent)}f}{name}"


def rounded(value: float, digits: int = 3) -> str:
    """`value` to `digits` figures, less the zeros at its end: "12", "0.5"."""
    text = f"{value:.{digits}g}"
    return number(value, digits) if "e" in text else text


def fixed(value: float, decimals: int = 0) -> str:
    """`value` with so many decimals, where it is not too long for that."""
    return number(value) if _LONG <= abs(value) < math.inf else f"{value:.{decimals}f}"


def signed(value: float, digits: int = 3) -> str:
    """`rounded` of a difference, with its sign."""
    text = rounded(value, digits)
    return text if text[0] in "-<>" or math.isnan(value) else f"+{text}"
