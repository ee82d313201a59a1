"""Peak memory against the context: a straight line through what was measured, and where it meets the device's memory.

Weights, adapters and their states do not grow with the context; activations grow in proportion to it, for attention
keeps no matrix of all pairs of tokens. So a line serves, and is drawn no farther than hours are projected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.candidates import FARTHEST
from harness.records.measurement import Measurement


@dataclass(frozen=True)
class MemoryLine:
    """bytes(n) = fixed + per_token * n. `contexts` are those measured, `reach` how far the line is drawn, `full_at` the
    context at which it meets the device's memory, None where that is farther."""

    fixed: float
    per_token: float
    contexts: tuple[int, ...]
    reach: float
    full_at: float | None

    def at(self, context: float) -> float:
        return self.fixed + self.per_token * context


def fit_memory(rows: Sequence[Measurement]) -> MemoryLine | None:
    """The line by least squares through the ok `rows` of one model, precision and recipe; None for less than two
    contexts, for other micro-batches, and where memory does not grow."""
    points = [(row.cell.context, row.peak_bytes) for row in rows if row.ok and row.peak_bytes]
    if len({row.cell.recipe.micro_batch for row in rows if row.ok}) != 1:
        return None
    contexts = tuple(sorted({context for context, _ in points}))
    if len(contexts) < 2:
        return None
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    if slope <= 0:
        return None
    fixed = mean_y - slope * mean_x
    total = next((row.device_total_bytes for row in rows if row.device_total_bytes), None)
    full_at = (total - fixed) / slope if total else None
    # Neither beyond the model's own window nor farther than anything else is projected.
    farthest = min(FARTHEST * contexts[-1], max(rows[0].cell.model.max_context, contexts[-1]))
    if full_at is not None and not contexts[-1] <= full_at <= farthest:
        full_at = None
    return MemoryLine(fixed, slope, contexts, full_at or min(2 * contexts[-1], farthest), full_at)
