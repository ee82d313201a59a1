"""One cell over time: what each of its measurements took, and whether the newest differs from the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.analysis.projection import relative_half_width, step_seconds
from harness.catalog.weights import RANDOM
from harness.records.measurement import CROWDED, Measurement


@dataclass(frozen=True)
class Moment:
    """One measurement of a cell: when, and seconds of an optimiser step with the relative half of its 95 % interval."""

    row: Measurement
    when: datetime
    step_s: float
    half: float


@dataclass(frozen=True)
class History:
    """The measurements of one cell on one kind of device, the oldest first; at least two."""

    moments: tuple[Moment, ...]

    @property
    def row(self) -> Measurement:
        return self.moments[-1].row

    @property
    def change(self) -> tuple[float, float, float]:
        """(low, middle, high) of the newest step's seconds over the first one's, at 95 %."""
        first, last = self.moments[0], self.moments[-1]
        ratio, half = last.step_s / first.step_s, math.hypot(first.half, last.half)
        return ratio * max(0.0, 1 - half), ratio, ratio * (1 + half)

    @property
    def changed(self) -> bool:
        low, _, high = self.change
        return not low <= 1 <= high

    @property
    def differences(self) -> list[str]:
        """What is not the same at both ends: versions, kernels, conditions, as "torch 2.13.0, then 2.14.1"."""
        first, last = self.moments[0].row, self.moments[-1].row
        before, after = ({**row.versions, **row.environment} for row in (first, last))
        pairs = [(name, before.get(name), after.get(name)) for name in {**before, **after}]
        # A machine that others used was slow for that.
        crowded = ("yes" if CROWDED in row.notes else "no" for row in (first, last))
        pairs += [
            ("kernels", first.kernels, last.kernels),
            ("timed while others used the cores", next(crowded), next(crowded)),
        ]
        pairs.append(("rule of measuring", str(first.rule), str(last.rule)))
        pairs.append(("commit", (first.commit or "")[:10], (last.commit or "")[:10]))
        return [f"{name} {old or 'none'}, then {new or 'none'}" for name, old, new in pairs if old != new]


def histories(rows: Sequence[Measurement]) -> list[History]:
    """One per cell and device that `rows` have at two moments or more, in the order of their first rows."""
    groups: dict[tuple, list[Moment]] = {}
    for row in rows:
        if row.ok and (when := _when(row)):
            step_s = step_seconds(row)
            if step_s > 0:
                groups.setdefault(_cell(row), []).append(Moment(row, when, step_s, relative_half_width(row)))
    made = []
    for moments in groups.values():
        ordered = sorted(moments, key=lambda moment: moment.when)
        if ordered[0].when < ordered[-1].when:
            made.append(History(tuple(ordered)))
    return made


def _cell(row: Measurement) -> tuple:
    """What makes two rows measurements of one cell, whatever the versions; weights by kind, for paths move."""
    cell = row.cell
    return (cell.model.name, cell.precision, cell.compute_dtype, cell.context, cell.recipe, cell.device_name,
            cell.weights == RANDOM)  # fmt: skip


def _when(row: Measurement) -> datetime | None:
    try:
        when = datetime.fromisoformat(row.started)
        return when if when.tzinfo else None
    except ValueError:
        return None
