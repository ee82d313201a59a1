"""The micro-batch and recomputation with most tokens per second that fit the memory: predicted, then measured.

Recomputing activations costs FLOPs, a larger micro-batch costs memory; which pays depends on the device. So all
combinations are predicted, and the two best are measured. Those that may run out of memory are tried only if nothing
else is left, the smallest first.
"""

from collections.abc import Callable

from harness.analysis.projection import step_seconds
from harness.predict.variants import MEASURED
from harness.records.cell import Cell
from harness.records.measurement import Measurement


def best(variants: list[Cell], measure: Callable[[Cell], Measurement]) -> Measurement:
    """The fastest of the first two `variants` that run; where one runs out of memory, the next is tried."""
    rows: list[Measurement] = []
    for variant in variants:
        rows.append(measure(variant))
        measured = [row for row in rows if row.ok]
        # Any other failure would meet the next variant, too.
        if len(measured) == MEASURED or (rows[-1].status not in ("ok", "oom")):
            break
    return min(measured, key=step_seconds) if measured else rows[-1]
