"""The micro-batch and checkpointing with most tokens a second inside the memory: predicted, then measured.

Making activations again costs products, and a larger micro-batch memory; which pays depends on the device, so the
combinations are predicted and the two best are measured. What may run out of memory is not tried unless nothing else is
left, and then from the smallest on.
"""

from collections.abc import Callable
from dataclasses import replace

from harness.analysis.projection import step_seconds
from harness.predict.prediction import Prediction
from harness.records.cell import MLP, Cell, Measurement

MEASURED = 2
_HOLDING_LESS = (False, MLP, True)  # and, of as many sequences at once, slower
_MOST = 8  # sequences at once; beyond, devices gain nothing that a search need look for


def candidates(cell: Cell, foresee: Callable[[Cell], Prediction | None]) -> list[Cell]:
    """Variants of `cell` to measure, the most promising first; `cell` itself alone where nothing can be predicted."""
    share = cell.recipe.sequences_per_step // cell.recipe.processes
    tried = []
    for batch in (n for n in range(1, _MOST + 1) if share % n == 0):
        for again in _HOLDING_LESS:
            recipe = replace(cell.recipe, micro_batch=batch, gradient_checkpointing=again)
            variant = replace(cell, recipe=recipe, why=f"fitted: micro-batch {batch}{in_words(again)}")
            if expected := foresee(variant):
                tried.append((variant, expected))
                if batch > 1 and expected.fits_memory():
                    break  # of one at a time all stay, should the memory be less than was predicted
    sure = [pair for pair in tried if pair[1].fits_memory()]
    if sure:
        return [variant for variant, _ in sorted(sure, key=lambda pair: pair[1].micro_s / pair[0].recipe.micro_batch)]
    perhaps = [pair for pair in tried if pair[1].fits_memory() is None]
    if perhaps:
        return [variant for variant, _ in sorted(perhaps, key=lambda pair: pair[1].peak_bytes)]
    return [cell]


def in_words(again: bool | str) -> str:
    """What a Recipe's `gradient_checkpointing` adds to what is said of it."""
    return "" if not again else ", checkpointing of the MLPs" if again == MLP else ", checkpointing"


def best(variants: list[Cell], measure: Callable[[Cell], Measurement]) -> Measurement:
    """The fastest of the first two `variants` that ran, others being tried where those ran out of memory."""
    rows: list[Measurement] = []
    for variant in variants:
        rows.append(measure(variant))
        done = [row for row in rows if row.ok]
        if len(done) == MEASURED or (rows[-1].status not in ("ok", "oom")):
            break
    return min(done, key=step_seconds) if done else rows[-1]
