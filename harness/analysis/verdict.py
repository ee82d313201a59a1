"""The word that a measured cell gets: by the hours of its whole run against the whole budget."""

import math

from harness.analysis.budget import WHOLE_SHARE, fits
from harness.analysis.run_hours import PREDICTED, RunHours
from harness.catalog import trainable
from harness.records.measurement import Measurement

FITS, TIGHT, TOO_SLOW, TOO_BIG, UNSTABLE, UNSURE = "fits", "tight", "too slow", "too big", "unstable", "unsure"
_OF_STATUS = {"oom": TOO_BIG, "too_slow": TOO_SLOW, "beyond_window": "over window"}
_WIDE = 1.5  # times its low end: an interval that is wider and spans the budget does not say


def verdict(row: Measurement, run: RunHours | None, budget_hours: float) -> str:
    """The word for `row` by the hours of `run`; without hours, what its status says.

    tight: the middle is within the budget and the slow end is not; where the answers are not counted, the slow end is
    within the budget but leaves them no room.
    """
    if trainable.overflow(row.cell.model, row.cell.compute_dtype):
        return UNSTABLE
    if not row.ok or run is None:
        return _OF_STATUS.get(row.status, row.status)
    if not all(map(math.isfinite, row.losses)):
        return UNSTABLE
    span = run.span
    if span.low <= budget_hours < span.high and span.high > _WIDE * span.low:
        return UNSURE if run.evidence == PREDICTED else UNSTABLE
    if run.fits(budget_hours):
        return FITS
    return TIGHT if fits(span.mid if run.answers else span.high, budget_hours, WHOLE_SHARE) else TOO_SLOW
