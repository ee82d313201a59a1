"""Variants of a cell (micro-batch and recomputation) that are predicted to fit, the most promising first."""

from collections.abc import Callable
from dataclasses import replace

from harness.predict.prediction import Prediction
from harness.records.cell import MLP, NONE, RECOMPUTE, Cell

MEASURED = 2
_BY_MEMORY = RECOMPUTE  # each holds less than the one before, and is slower for as many sequences at once
_LARGEST_BATCH = 8  # sequences at once; beyond, devices gain nothing that a search need look for


def recipe_variants(cell: Cell, predict: Callable[[Cell], Prediction | None]) -> list[Cell]:
    """Variants of `cell` to measure, the most promising first; `cell` itself alone where nothing can be predicted."""
    share = cell.recipe.sequences_per_step // cell.recipe.data_parallel
    predicted = []
    # Per micro-batch, from the least recomputation on, until one surely fits.
    for batch in (n for n in range(1, _LARGEST_BATCH + 1) if share % n == 0):
        for recompute in _BY_MEMORY:
            recipe = replace(cell.recipe, micro_batch=batch, gradient_checkpointing=recompute)
            variant = replace(cell, recipe=recipe, why=f"fitted: micro-batch {batch}{describe(recompute)}")
            if prediction := predict(variant):
                predicted.append((variant, prediction))
                if batch > 1 and prediction.fits_memory():
                    break  # of one at a time all stay, should the memory be less than was predicted
    # Of those that fit for sure the fastest first; where none does, of those that may the smallest.
    fitting = [pair for pair in predicted if pair[1].fits_memory()]
    if fitting:
        fitting.sort(key=lambda pair: pair[1].micro_s / pair[0].recipe.micro_batch)
        return [variant for variant, _ in fitting]
    borderline = [pair for pair in predicted if pair[1].fits_memory() is None]
    if borderline:
        return [variant for variant, _ in sorted(borderline, key=lambda pair: pair[1].peak_bytes)]
    return [cell]


def describe(recompute: str) -> str:
    """What a Recipe's `gradient_checkpointing` adds to a variant's description."""
    return "" if recompute == NONE else ", checkpointing of the MLPs" if recompute == MLP else ", checkpointing"
