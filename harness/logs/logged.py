"""What a training log of others tells of its run: what it does not tell is None."""

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.digits import rounded

GIB = 2**30
# torch.nn.DataParallel, which transformers takes where it finds several cards and one process: each step copies the
# model to all cards and their outputs and gradients to the first one.
DATA_PARALLEL = (
    "it was trained by one process on {} cards (torch.nn.DataParallel), whose time and memory are not predicted; take "
    "a run that torchrun or accelerate started with a process per card, or one of a single card"
)
RESERVED, ALLOCATED = "reserved", "allocated"  # by torch's allocator, from the device and by tensors


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One run. `tokens` and `flos` (transformers' total_flos) are of all of its `steps` together, on all cards, and
    `seconds` are of these steps too.

    `packed` says that every sequence has `window` tokens; else these are only the most that one can have.
    """

    tool: str = ""
    model: str | None = None  # as the log writes it: a hub id, a folder
    card: str | None = None
    cards: int | None = None  # that share a step
    cards_shown: int | None = None  # of the machine
    precision: str | None = None
    method: str | None = None
    lora_r: int | None = None
    lora_targets: str | None = None
    sequences_per_step: int | None = None
    micro_batch: int | None = None
    recompute: str | None = None  # one of harness.records.cell.RECOMPUTE
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


def sequences_of(samples_per_second: Any, steps_per_second: Any, steps_per_epoch: float | None = None) -> int | None:
    """Sequences per step by two rates that transformers rounds: None where they allow several.

    The mean of a run of whole epochs is lower than its steps', for each epoch's last step may have fewer: by one step's
    sequences per epoch at most.
    """
    samples, steps = positive(samples_per_second), positive(steps_per_second)
    if not samples or not steps:
        return None
    more, less = _rounding(samples_per_second), _rounding(steps_per_second)
    if steps <= less:
        return None
    low, high = (samples - more) / (steps + less), (samples + more) / (steps - less)
    if math.floor(high) < low and steps_per_epoch and steps_per_epoch > 1:
        high *= steps_per_epoch / (steps_per_epoch - 1)
    return math.floor(high) if high < 1e6 and math.ceil(low) == math.floor(high) else None


def _rounding(rate: Any) -> float:
    """By how much a rate may be off: transformers saves three decimals; newer versions print four digits of them."""
    number = positive(rate) or 1.0
    digits = len(re.sub(r"[^0-9]", "", rate).lstrip("0")) if isinstance(rate, str) else 5
    return 5e-4 if digits > 4 else max(5e-4, 0.5 * 10 ** (math.floor(math.log10(number)) - 3))


def timed_steps(steps: int, seconds: float, steps_per_second: Any) -> int | None:
    """How many of a run's `steps` its `seconds` are of, by its rate, which counts the steps after it was resumed; older
    versions count all of them. None where the rate has too few digits to tell."""
    rate = positive(steps_per_second)
    if not rate:
        return steps
    slack = seconds * _rounding(steps_per_second) + 0.5
    if rate * seconds + slack >= steps:
        return steps
    return round(rate * seconds) if slack < 0.03 * rate * seconds + 1 else None


@dataclass(frozen=True)
class Pace:
    """`steps` and the `seconds` that these took, None where either is not told. `share` is theirs of the whole run."""

    steps: int | None
    seconds: float | None
    share: float = 1.0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        steps: int | None,
        seconds: float | None,
        evaluations_s: float = 0.0,
        began: int | None = None,
        rate: Any = None,
        evaluated: bool = False,
    ) -> "Pace":
        """Of a run that has made `steps`, the last ones of them in `seconds`, `evaluations_s` of these for evaluations.

        `began` is the step at which it was resumed, if that is told; `evaluated` says that evaluations without a time
        are in it.
        """
        notes, share, whole = [], 1.0, steps
        if steps and seconds:
            steps = steps - began if began else timed_steps(steps, seconds, rate)
            if steps != whole and whole:
                # Some steps are made in any case.
                steps = steps if steps and steps > 0 else None
                share = (steps or 0) / whole
                notes.append(f"it was resumed: {steps or 'few'} of its {whole} steps are timed")
        if seconds and evaluations_s:
            seconds = seconds - evaluations_s if evaluations_s < seconds else None
            notes.append(f"less {rounded(evaluations_s, 4)} s of evaluations")
        if evaluated:
            notes.append("the seconds of its evaluations are in its steps")
        return cls(steps, seconds, share, tuple(notes))

    def part(self, whole: float | None) -> float | None:
        """What falls to these steps of a count of the whole run."""
        return positive(whole * self.share) if whole else None
