"""The micro-batch and checkpointing with most tokens a second inside the memory: predicted, then measured.

Making activations again costs products, and a larger micro-batch memory; which pays depends on the device, so the
combinations are predicted and the two best are measured. What may run out of memory is not tried unless nothing else is
left, and then from the smallest on.
"""

from collections.abc import Callable

from harness.analysis.projection import step_seconds
from harness.predict.variants import MEASURED
from harness.records.cell import Cell
from harness.records.measurement import Measurement


def best(variants: list[Cell], measure: Callable[[Cell], Measurement]) -> Measurement:
    """The fastest of the first two `variants` that ran, others being tried where those ran out of memory."""
    rows: list[Measurement] = []
    for variant in variants:
        rows.append(measure(variant))
        measured = [row for row in rows if row.ok]
        if len(measured) == MEASURED or (rows[-1].status not in ("ok", "oom")):
            break
    return min(measured, key=step_seconds) if measured else rows[-1]
