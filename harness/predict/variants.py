"""Variants of a cell (micro-batch and recomputation) that are predicted to fit, the most promising first."""

from collections.abc import Callable
from dataclasses import replace

from harness.predict.prediction import Prediction
from harness.records.cell import MLP, NONE, RECOMPUTE, Cell

MEASURED = 2
_HOLDING_LESS = RECOMPUTE  # and, of as many sequences at once, slower
_MOST = 8  # sequences at once; beyond, devices gain nothing that a search need look for


def candidates(cell: Cell, foresee: Callable[[Cell], Prediction | None]) -> list[Cell]:
    """Variants of `cell` to measure, the most promising first; `cell` itself alone where nothing can be predicted."""
    share = cell.recipe.sequences_per_step // cell.recipe.data_parallel
    tried = []
    for batch in (n for n in range(1, _MOST + 1) if share % n == 0):
        for again in _HOLDING_LESS:
            recipe = replace(cell.recipe, micro_batch=batch, gradient_checkpointing=again)
            variant = replace(cell, recipe=recipe, why=f"fitted: micro-batch {batch}{describe(again)}")
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


def describe(again: str) -> str:
    """What a Recipe's `gradient_checkpointing` adds to what is said of it."""
    return "" if again == NONE else ", checkpointing of the MLPs" if again == MLP else ", checkpointing"
