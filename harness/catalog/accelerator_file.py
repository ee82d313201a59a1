"""An accelerator that a user describes in a YAML file, as in `--gpu mine.yaml`."""

import re
from pathlib import Path
from typing import Any

from harness import limits
from harness.catalog import strict_yaml
from harness.catalog.accelerator import EMULATED, Accelerator, from_figures
from harness.catalog.precisions import DTYPES
from harness.text import quoted


class _CardFile(strict_yaml.Strict, frozen=True):
    """An accelerator of the user's own. The amounts are texts with a unit, checked one by one."""

    name: limits.CardName
    memory: Any = None
    bandwidth: Any = None
    fp32: Any = None
    fp16: Any = None
    bf16: Any = None
    capability: limits.Capability | None = None


_MOST = 1e18  # bytes, bytes/s or FLOP/s: a thousand times the largest card of today
_RATE_UNITS = {"TFLOP/s": 1e12, "GFLOP/s": 1e9, "TFLOPS": 1e12, "GFLOPS": 1e9}
_UNITS = {
    "memory": {"GiB": 2**30, "GB": 1e9, "MiB": 2**20},
    "bandwidth": {"GB/s": 1e9, "TB/s": 1e12},
    **dict.fromkeys(DTYPES, _RATE_UNITS),
}


def read_accelerator(path: Path) -> Accelerator:
    """The card that a YAML file describes. Raises UserError with line and key for any fault in it."""
    document = strict_yaml.parse_file(path, "--gpu")
    card = document.convert(_CardFile)
    # fp32 is required: emulated dtypes are computed by its units.
    rates: dict[str, float | str] = {}
    for dtype in DTYPES:
        if dtype != "fp32" and getattr(card, dtype) == EMULATED:
            rates[dtype] = EMULATED
        elif dtype == "fp32" or getattr(card, dtype) is not None:
            rates[dtype] = _amount(document, card, dtype)
    memory, bandwidth = _amount(document, card, "memory"), _amount(document, card, "bandwidth")
    return from_figures(card.name, memory, bandwidth, rates, card.capability)


def _amount(document: strict_yaml.Document, card: _CardFile, key: str) -> float:
    """The number at `key` in bytes, bytes/s or FLOP/s. Raises UserError where it has no unit, or is not above 0."""
    value, units = getattr(card, key), _UNITS[key]
    example = f"24 {next(iter(units))}"
    if value is None:
        raise document.error((key,), f"is missing; write it with its unit, as in '{example}'")
    # "24 GiB", "1.5e3 GB/s": a number, then one of the units.
    amount = re.fullmatch(r"([0-9.]{1,40}(?:e[+-]?[0-9]{1,4})?)\s*(\S+)", str(value)[:80])
    if not amount or amount[2] not in units:
        raise document.error((key,), f"needs a number with its unit, as in '{example}'")
    try:
        number = float(amount[1])
    except ValueError:
        number = 0.0
    if not 0 < number * units[amount[2]] < _MOST:
        raise document.error((key,), f"must be above 0 and below {_MOST:g} in bytes or FLOP, not {quoted(amount[0])}")
    return number * units[amount[2]]
