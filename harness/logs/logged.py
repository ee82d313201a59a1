"""What a training log of others tells of its run: what it does not tell is None."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

GIB = 2**30
RESERVED, ALLOCATED = "reserved", "allocated"  # by torch's allocator, from the device and by tensors


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One run. `tokens` and `flos` (transformers' total_flos) are of all of its `steps` together, on all cards.

    `packed` says that every sequence has `window` tokens; else these are only the most that one can have.
    """

    tool: str = ""
    model: str | None = None  # as the log writes it: a hub id, a folder
    card: str | None = None
    cards: int | None = None
    precision: str | None = None
    method: str | None = None
    lora_r: int | None = None
    lora_targets: str | None = None
    sequences_per_step: int | None = None
    micro_batch: int | None = None
    steps: int | None = None
    seconds: float | None = None  # of training
    tokens: float | None = None
    flos: float | None = None
    trainable: int | None = None
    window: int | None = None
    packed: bool = False
    peak_bytes: float | None = None
    peak_of: str = RESERVED
    notes: tuple[str, ...] = ()

    def or_else(self, other: "LoggedRun") -> "LoggedRun":
        """This run, with what `other` tells where it tells nothing itself."""
        lacking = {f.name: getattr(other, f.name) for f in fields(self) if getattr(self, f.name) in (None, "", ())}
        return replace(self, packed=self.packed or other.packed, **lacking)


def positive(value: Any) -> float | None:
    """The number that `value` is or writes ("1,234", "1.2e18"), if it is finite and above zero; else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value.replace(",", "").strip()) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def count(value: Any) -> int | None:
    """`positive`, if it is a whole number of at most ten digits."""
    number = positive(value)
    return int(number) if number and number < 1e10 and number == int(number) else None


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one: a log from anywhere may have anything anywhere."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """`value` if it is a text with something in it and of a name's length; else None."""
    return value.strip() if isinstance(value, str) and 0 < len(value.strip()) <= 300 else None


def sequences_of(samples_per_second: Any, steps_per_second: Any) -> int | None:
    """Sequences per step by two rates that transformers rounds to three decimals: None where they allow several."""
    samples, steps = positive(samples_per_second), positive(steps_per_second)
    if not samples or not steps or steps <= 5e-4:
        return None
    low, high = (samples - 5e-4) / (steps + 5e-4), (samples + 5e-4) / (steps - 5e-4)
    return round(samples / steps) if high < 1e6 and math.ceil(low) == math.floor(high) else None
