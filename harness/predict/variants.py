"""The micro-batch that a cell has by default, and variants of it (micro-batch and recomputation) for a search."""

from collections.abc import Callable
from dataclasses import replace

from harness.catalog.accelerators import CUDA
from harness.catalog.activations import layers_and_width, tokens_at_once
from harness.predict.prediction import Prediction
from harness.records.cell import MLP, NONE, OPTIMIZED, RECOMPUTE, Cell, Recipe

MEASURED = 2
_BY_MEMORY = RECOMPUTE  # each holds less than the one before, and is slower for as many sequences at once
_LARGEST_BATCH = 8  # sequences at once that a search tries, or the cell's own if these are more


def default_micro_batch(alone: Prediction) -> int:
    """Sequences per forward and backward where nobody chose, from the prediction of one sequence at a time.

    On a card as many as a fine-tune would pack together there, so that it does not wait for the interpreter; on a CPU,
    and in a step other than our own, the recipe's.
    """
    recipe, card = alone.recipe, alone.accelerator
    layers, width = layers_and_width(alone.spec.architecture)
    ours = recipe.implementation == OPTIMIZED and recipe.layer_split == 1
    if card.kind != CUDA or not ours or recipe.micro_batch > 1 or not layers * width:
        return recipe.micro_batch
    # What is traced and the card's size alone decide, no calibration: the same cell always gets the same.
    free_bytes = card.memory_bytes - card.context_bytes - alone.trace.memory.persistent
    tokens = tokens_at_once(layers, width, 4 if alone.compute_dtype == "fp32" else 2, free_bytes)
    return micro_batch_within(tokens, alone.context, recipe)


def micro_batch_within(tokens: int, context: int, recipe: Recipe) -> int:
    """The largest power of two that divides a process's share of the step and has at most `tokens`; 1 at least."""
    share, size = recipe.sequences_per_step // recipe.data_parallel, 1
    while share % (2 * size) == 0 and 2 * size * context <= tokens:
        size *= 2
    return size


def with_micro_batch(cell: Cell, size: int) -> Cell:
    return replace(cell, recipe=replace(cell.recipe, micro_batch=size))


def halved(cell: Cell) -> list[Cell]:
    """`cell`, then the same with half its micro-batch, and so on, as long as halves are whole."""
    cells = [cell]
    while (size := cells[-1].recipe.micro_batch) % 2 == 0:
        cells.append(with_micro_batch(cell, size // 2))
    return cells


def recipe_variants(cell: Cell, predict: Callable[[Cell], Prediction | None]) -> list[Cell]:
    """Variants of `cell` to measure, the most promising first; `cell` itself alone where nothing can be predicted."""
    share = cell.recipe.sequences_per_step // cell.recipe.data_parallel
    predicted = []
    # Per micro-batch, from the least recomputation on, until one surely fits.
    largest = max(_LARGEST_BATCH, cell.recipe.micro_batch)
    for batch in (n for n in range(1, largest + 1) if share % n == 0):
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
