"""The same cells on several kinds of device: hours of training beside each other."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.projection import project
from harness.measure.config import SweepResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.report.format import hours
from harness.report.style import plain_table


def show(sweeps: Sequence[SweepResult], goal: Goal, out: Console) -> None:
    """Prints a row per cell and a column per device: hours for the goal's steps, or what its status says."""
    names = "|".join(sweep.report.device.name.replace("|", " ") for sweep in sweeps)
    table = plain_table(f"<model|<prec|seq|{names}")
    cells: dict[tuple[str, str, int], list[str]] = {}
    for column, sweep in enumerate(sweeps):
        for row in sweep.rows:
            key = (row.cell.model.name, row.cell.precision, row.cell.context)
            cells.setdefault(key, ["-"] * len(sweeps))[column] = _text_of(row, goal.steps)
    for (model, precision, context), texts in cells.items():
        table.add_row(model, precision, str(context), *texts)
    out.print(table)
    out.print(Text(f"Hours of {goal.steps} steps at full contexts on each kind of device, with a 95 % interval."))


def _text_of(row: Measurement, steps: int) -> str:
    if not row.ok:
        return row.status.replace("_", " ")
    span = project(row, steps)
    return hours(span.hours_low, span.hours_mid, span.hours_high)
