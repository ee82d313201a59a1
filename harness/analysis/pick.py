"""Which measured cell to take where no accuracy is known: the largest model that fits, at a context that is of use."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.projection import Projection, project
from harness.analysis.token_curve import ArcHours
from harness.analysis.verdict import FITS, TIGHT, verdict
from harness.arc import lengths
from harness.records.measurement import Measurement

_HALF = 0.5  # of ARC's sequences: a context that admits fewer is of little use


@dataclass(frozen=True)
class Pick:
    """The best of the measured cells, or None, and the sentence that says why."""

    row: Measurement | None
    why: str


def pick(rows: Sequence[Measurement], budget_hours: float, steps: int = 1000) -> Pick:
    """The largest model that fits by its verdict, at a context that admits half of ARC's sequences if any such fits.

    Among the cells of that model the longest context wins, then the fewest hours; `fits` goes before `tight`.
    """
    measured = [row for row in rows if row.ok]
    words = {id(row): verdict(row, budget_hours, steps) for row in measured}
    good = [row for row in measured if words[id(row)] in (FITS, TIGHT)]
    if good:
        best = max(good, key=lambda row: merit(row, project(row, steps).hours_mid, words[id(row)] == FITS))
        return Pick(best, sentence(best, good, budget_hours, f"{steps} steps", project(best, steps)))
    if not measured:
        return Pick(None, "No candidate: no cell was measured; the reasons stand in the table.")
    near = min(measured, key=lambda row: project(row, steps).hours_high)
    hours = project(near, steps)
    over = hours.hours_high / budget_hours
    affordable = steps_within(hours, hours.fixed_h, steps, budget_hours)
    return Pick(
        None,
        f"None fits {budget_hours:g} h. Nearest: {_name(near)}, {steps} steps in {_span(hours)}: "
        f"it would fit with {affordable} steps, or on a device {over:.1f} times as fast.",
    )


def merit(row: Measurement, hours_mid: float, surely: bool = True) -> tuple:
    """What is larger for a cell that fits better than another one; `surely` where it does so with room to spare."""
    cell = row.cell
    return lengths.coverage(cell.context) >= _HALF, surely, row.params or 0, cell.context, -hours_mid


def sentence(
    best: Measurement, good: Sequence[Measurement], budget_hours: float, work: str, hours: Projection | ArcHours
) -> str:
    """Why `best` of the `good` cells, which fit; `work` is what the `hours` are of."""
    covered, among = lengths.coverage(best.cell.context), {row.cell.model.name for row in good}
    alike = {row.cell.model.name for row in good if (lengths.coverage(row.cell.context) >= _HALF) == (covered >= _HALF)}
    why = f"the largest of {len(alike)} models that fit" if len(alike) > 1 else "the only model that fits"
    where = " at a context that admits half of ARC's sequences" if alike != among else ""
    return (
        f"Best candidate: {_name(best)}: {why} {budget_hours:g} h{where}, with {work} in {_span(hours)}; "
        f"its context admits {100 * covered:.0f} % of ARC's leave-one-out sequences."
    )


def steps_within(hours: Projection | ArcHours, fixed_h: float, steps: int, budget_hours: float) -> int:
    """Of the `steps` that take `hours`, those that end within the budget at the slow end; more than all if that is so.

    `fixed_h` of the hours are there whatever the steps.
    """
    return max(0, int(steps * (budget_hours - fixed_h) / (hours.hours_high - fixed_h)))


def _name(row: Measurement) -> str:
    return f"{row.cell.model.name} {row.cell.precision} at {row.cell.context} tokens"


def _span(hours: Projection | ArcHours) -> str:
    return f"{hours.hours_mid:.3g} h ({hours.hours_low:.3g} to {hours.hours_high:.3g})"
