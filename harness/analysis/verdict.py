"""Whether hours fit the budget: the one rule of every table, and the word that a measured cell gets by it."""

import math

from harness.analysis.projection import project
from harness.catalog import trainable
from harness.records.measurement import Measurement

FITS, TIGHT, TOO_SLOW, TOO_BIG, UNSTABLE = "fits", "tight", "too slow", "too big", "unstable"
_OF_STATUS = {"oom": TOO_BIG, "too_slow": TOO_SLOW, "beyond_window": "over window"}
# The part of the budget that hours may take. Where they are of training alone the answers need room: published runs
# spent another 45 to 75 % of their training time on inference out of the same hours.
TRAINING_SHARE, WHOLE_SHARE = 0.8, 1.0


def fits(hours_high: float, budget_hours: float, share: float) -> bool:
    """Whether `hours_high`, the high end of a 95 % interval, is within `share` (0 to 1) of the budget."""
    return hours_high <= share * budget_hours


def verdict(row: Measurement, budget_hours: float, steps: int = 1000) -> str:
    """The word for `row` by its hours of training at full contexts; without hours, what its status says."""
    if trainable.overflow(row.cell.model, row.cell.compute_dtype):
        return UNSTABLE
    if not row.ok:
        return _OF_STATUS.get(row.status, row.status)
    if not all(map(math.isfinite, row.losses)):
        return UNSTABLE
    hours = project(row, steps)
    # An interval that spans the budget, and is wide, does not say.
    if hours.hours_low <= budget_hours < hours.hours_high and hours.hours_high > 1.5 * hours.hours_low:
        return UNSTABLE
    if fits(hours.hours_high, budget_hours, TRAINING_SHARE):
        return FITS
    return TIGHT if fits(hours.hours_high, budget_hours, WHOLE_SHARE) else TOO_SLOW
