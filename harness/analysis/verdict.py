"""Whether a cell fits the budget, and which one to take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.projection import Projection, project
from harness.arc import lengths
from harness.records.cell import Measurement

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


@dataclass(frozen=True)
class Pick:
    """The best of the measured cells, or None, and the sentence that says why."""

    row: Measurement | None
    why: str


def pick(rows: Sequence[Measurement], budget_hours: float, steps: int = 1000) -> Pick:
    """The largest model that fits, at a context that admits half of ARC's sequences if any such fits.

    Among the cells of that model the longest context wins, then the fewest hours; `fits` goes before `tight`.
    """
    measured = [row for row in rows if row.ok]
    words = {id(row): verdict(row, budget_hours, steps) for row in measured}
    good = [row for row in measured if words[id(row)] in (FITS, TIGHT)]
    if good:
        best = max(good, key=lambda row: _merit(row, words[id(row)], steps))
        hours = project(best, steps)
        covered = lengths.coverage(best.cell.context)
        others = len({row.cell.model.name for row in good}) - 1
        why = f"the largest of {others + 1} models that fit" if others else "the only model that fits"
        return Pick(
            best,
            f"Best candidate: {_name(best)}: {why} {budget_hours:g} h, with {steps} steps in {_hours(hours)}; "
            f"its context admits {100 * covered:.0f} % of ARC's leave-one-out sequences.",
        )
    if not measured:
        return Pick(None, "No candidate: no cell was measured; the reasons stand in the table.")
    near = min(measured, key=lambda row: project(row, steps).hours_high)
    hours = project(near, steps)
    over = hours.hours_high / budget_hours
    fixed_h = hours.hours_mid - steps * hours.step_s / 3600
    affordable = max(0, int(steps * (budget_hours - fixed_h) / (hours.hours_high - fixed_h)))
    return Pick(
        None,
        f"None fits {budget_hours:g} h. Nearest: {_name(near)}, {steps} steps in {_hours(hours)}: "
        f"it would fit with {affordable} steps, or on a device {over:.1f} times as fast.",
    )


def _merit(row: Measurement, word: str, steps: int) -> tuple:
    cell = row.cell
    return (
        lengths.coverage(cell.context) >= 0.5,
        word == FITS,
        row.params or 0,
        cell.context,
        -project(row, steps).hours_mid,
    )


def _name(row: Measurement) -> str:
    return f"{row.cell.model.name} {row.cell.precision} at {row.cell.context} tokens"


def _hours(p: Projection) -> str:
    return f"{p.hours_mid:.3g} h ({p.hours_low:.3g} to {p.hours_high:.3g})"
