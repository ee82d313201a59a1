"""The micro-batch and recomputation with most tokens per second that fit the memory: predicted, then measured.

Recomputing activations costs FLOPs, a larger micro-batch costs memory; which pays depends on the device. So all
combinations are predicted, and the two best are measured. Those that may run out of memory are tried only if nothing
else is left, the smallest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.analysis.projection import step_seconds
from harness.predict.variants import MEASURED
from harness.records.cell import Cell
from harness.records.measurement import Measurement


def best(variants: Sequence[Cell], measure: Callable[[Cell], Measurement], enough: int = MEASURED) -> Measurement:
    """The fastest of the first `enough` of `variants` that run; where one runs out of memory, the next is tried."""
    rows: list[Measurement] = []
    for variant in variants:
        rows.append(measure(variant))
        measured = [row for row in rows if row.ok]
        # Any other failure would meet the next variant, too, as would weights that do not fit.
        if len(measured) == enough or rows[-1].status not in ("ok", "oom") or _weights_alone(rows[-1]):
            break
    return min(measured, key=step_seconds) if measured else rows[-1]


def in_place_of(row: Measurement, requested: Cell, why: str) -> Measurement:
    """`row`, measured with a smaller micro-batch than that of the `requested` cell, whose row it is; it says `why`."""
    size, used = requested.recipe.micro_batch, row.cell.recipe.micro_batch
    if used == size:
        return row
    note = f"micro-batch {size} {why}; this is of micro-batch {used}"
    return replace(row, requested_micro_batch=size, notes=(*row.notes, note))


def _weights_alone(row: Measurement) -> bool:
    """Whether memory ran out before the model was loaded."""
    return "imported" in row.memory and "after_load" not in row.memory
