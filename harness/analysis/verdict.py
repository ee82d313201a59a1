"""Whether a cell fits the budget, and which one to take."""

import math

from harness.analysis.projection import project
from harness.records.measurement import Measurement

FITS, TIGHT, TOO_SLOW, TOO_BIG, UNSTABLE = "fits", "tight", "too slow", "too big", "unstable"
# Published runs spent another 45 to 75 % of their training time on inference out of the same hours, so a run that
# fills more than this much of the budget is called tight.
ROOM = 0.8


def verdict(row: Measurement, budget_hours: float, steps: int = 1000) -> str:
    """The word for `row` under a budget of `budget_hours`, judged on the high end of its interval.

    A row that was not measured has its status for a verdict, but for `oom` (too big) and `too_slow`.
    """
    if row.status == "oom":
        return TOO_BIG
    if row.status == "too_slow":
        return TOO_SLOW
    if row.status == "beyond_window":
        return "over window"
    if not row.ok:
        return row.status
    if not all(map(math.isfinite, row.losses)):
        return UNSTABLE
    hours = project(row, steps)
    if hours.hours_low <= budget_hours < hours.hours_high and hours.hours_high > 1.5 * hours.hours_low:
        return UNSTABLE  # the interval is too wide to say
    if hours.hours_high > budget_hours:
        return TOO_SLOW
    return FITS if hours.hours_high <= ROOM * budget_hours else TIGHT
