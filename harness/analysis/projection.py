"""From samples to hours: how long a run of many steps takes, with an interval for what sampling could not see.

hours = load + warm-up + steps x (micro-steps per step x mean micro-step + update). The mean and not the median, for a
long run pays for its slow micro-steps too. The interval joins the sampling error of the mean with the drift, the
run-to-run and minute-to-minute change of a machine that a short sample cannot see, and with any trend that it could.
The update has a part of its own in it: with several cards it holds the wait for the slowest one.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median

from harness.analysis import stats
from harness.analysis.drift import drift
from harness.records.measurement import Measurement


@dataclass(frozen=True)
class Projection:
    """Hours for `steps` optimiser steps, load and warm-up included; low and high bound 95 %."""

    steps: int
    hours_low: float
    hours_mid: float
    hours_high: float
    step_s: float

    @property
    def fixed_h(self) -> float:
        """Hours of load and warm-up, whatever the number of steps."""
        return self.hours_mid - self.steps * self.step_s / 3600


def step_seconds(row: Measurement) -> float:
    """Seconds of one optimiser step of `sequences_per_step` sequences, all of the cell's context."""
    return row.cell.recipe.micro_steps_per_step * fmean(row.micro_s) + fmean(row.optimizer_s)


def relative_half_width(row: Measurement) -> float:
    """Half the 95 % interval of a long run's mean step, relative to it."""
    return half_width(row.micro_s, row.optimizer_s, row.cell.recipe.micro_steps_per_step, drift(row))


@lru_cache(maxsize=1 << 17)  # every table asks again
def half_width(micro_s: tuple[float, ...], optimizer_s: tuple[float, ...], micro_steps: int, drift: float) -> float:
    """The same from the samples of a step of so many micro-steps and an update, on a device with this `drift`."""
    sampling = sampling_half_width(micro_s)
    # One update alone has no spread to tell: it is taken to vary as the micro-steps do. Several may be noisier.
    if len(optimizer_s) > 1:
        update = min(1.0, sampling_half_width(optimizer_s))
        parts = micro_steps * fmean(micro_s), fmean(optimizer_s)
        sampling = math.hypot(parts[0] * sampling, parts[1] * update) / sum(parts)
    return math.hypot(sampling, 1.96 * drift)


def sampling_half_width(seconds: tuple[float, ...]) -> float:
    """Half the 95 % interval of the mean that a long run of such samples has, relative to it."""
    mean = fmean(seconds)
    if not mean:
        return 0.0
    sampling = max(stats.mean_half_width(seconds), abs(stats.trend(seconds)) / 2)
    extreme = max(max(seconds) - mean, mean - min(seconds)) / mean
    # A long run's mean lies among the speeds that were seen; only few samples may have missed some.
    return min(sampling, extreme) if len(seconds) >= 10 else sampling


def project(row: Measurement, steps: int = 1000) -> Projection:
    """The projection of an ok `row`. Raises ValueError for a row without samples."""
    if not row.ok or not row.micro_s:
        raise ValueError(
            f"{row.cell.model.name} {row.cell.precision} {row.cell.context} was not measured: {row.status}"
        )
    step_s, half = step_seconds(row), relative_half_width(row)
    fixed, mid = fixed_seconds(row), steps * step_s
    low, high = mid * max(0.0, 1 - half), mid * (1 + half)
    return Projection(steps, (fixed + low) / 3600, (fixed + mid) / 3600, (fixed + high) / 3600, step_s)


def fixed_seconds(row: Measurement) -> float:
    """Seconds of load and warm-up: what is paid once per run, however many steps it has."""
    return (row.load_s or 0.0) + sum(row.warmup_micro_s) + sum(row.warmup_optimizer_s)


def tokens_per_second(row: Measurement) -> float:
    """Real tokens per second of training, updates included; there is no padding to count."""
    return row.cell.recipe.sequences_per_step * row.cell.context / step_seconds(row)


def achieved_flops(row: Measurement) -> float | None:
    """FLOP/s of the counted matrix products over the micro-step's median time."""
    return row.work.total(row.cell.context) * row.cell.recipe.micro_batch / median(row.micro_s) if row.work else None


def share_of_peak(row: Measurement) -> float | None:
    """Achieved FLOP/s over the probed rate of the compute dtype; above 1 where larger products are faster still."""
    achieved = achieved_flops(row)
    return achieved / row.rate.combined if achieved and row.rate else None
