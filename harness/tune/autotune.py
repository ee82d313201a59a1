"""Finds how many tokens a fine-tune packs together and what it recomputes: predicted first, then timed on prompts.

harness.measure.autotune does the same for the cells of a sweep; this one uses the model that is loaded already.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from harness.hardware.device import synchronizer
from harness.predict.prediction import Prediction
from harness.predict.variants import MEASURED, micro_batch_within, recipe_variants
from harness.records.arm import TuneSpec
from harness.records.cell import Cell
from harness.train import distributed, recompute
from harness.train.batches import first_fit_decreasing, pack
from harness.train.device_errors import ran_out
from harness.train.packing import PackSetting, free_memory
from harness.train.step import TrainingStep

Sequences = Sequence[tuple[Sequence[int], int]]  # (token ids, answer tokens) per sequence


def variants(spec: TuneSpec, foresee: Callable[[Cell], Prediction | None], default_tokens: int) -> list[PackSetting]:
    """The settings worth trying, most promising first, up to as many tokens as are packed by default where these are
    more than a search goes to; only the default where nothing can be predicted."""
    # A micro-batch of full sequences stands for as many tokens of packed shorter ones.
    recipe = replace(spec.recipe, micro_batch=micro_batch_within(default_tokens, spec.context, spec.recipe))
    cell = Cell(spec.model, spec.precision, spec.compute_dtype, spec.context, recipe, spec.weights, spec.device,
                spec.device_name)  # fmt: skip
    recipes = [candidate.recipe for candidate in recipe_variants(cell, foresee)]
    return [PackSetting(r.micro_batch * spec.context, r.gradient_checkpointing) for r in recipes]


def fastest(
    model: torch.nn.Module,
    sequences: Sequences,
    tried: Sequence[PackSetting],
    spec: TuneSpec,
    note: Callable[[str], None],
) -> PackSetting:
    """The faster, in tokens per second, of the first two of `tried` that fit the memory; sets it in `model`.

    Raises torch.OutOfMemoryError where none fits.
    """
    seconds: dict[PackSetting, float] = {}
    for setting in tried:
        note(f"fitting: {setting} ...")
        recompute.apply(model, setting.recompute)
        # Cards that train together take the same setting: it fits where all can, and is as fast as the slowest.
        tries = distributed.all_gather(_seconds_or_none(model, sequences, setting.tokens, spec))
        if all(tries):
            seconds[setting] = max(tries)
        else:
            # Gradients and cached blocks of the failed try would count against the next one.
            note(f"{setting}: out of memory")
            model.zero_grad(set_to_none=True)
            free_memory()
        if len(seconds) == MEASURED:
            break
    if not seconds:
        raise torch.OutOfMemoryError("no variant fits")
    # The last setting that was tried need not be the best: the model gets the best one again.
    best = min(seconds, key=lambda setting: seconds[setting])
    recompute.apply(model, best.recompute)
    rates = "; ".join(f"{setting} {1 / s:.0f} tokens/s" for setting, s in seconds.items())
    note(f"fitted: {best} ({rates})" if len(seconds) > 1 else f"fitted: {best}")
    return best


def _seconds_or_none(model: torch.nn.Module, sequences: Sequences, tokens: int, spec: TuneSpec) -> float | None:
    """`seconds_per_token`, or None where memory runs out."""
    try:
        return seconds_per_token(model, sequences, tokens, spec)
    except Exception as problem:
        if not ran_out(problem):
            raise
    return None


def seconds_per_token(model: torch.nn.Module, sequences: Sequences, tokens: int, spec: TuneSpec) -> float:
    """Seconds per token of the fullest pack's forward and backward, on its second run; leaves no gradient."""
    device = next(model.parameters()).device
    step, wait = TrainingStep(model, spec.recipe, spec.compute_dtype, device), synchronizer(device)
    members = first_fit_decreasing([len(ids) for ids, _ in sequences], tokens)[0]
    packed = pack([sequences[i] for i in members], device)
    # The first run warms up (allocator, compiled kernels); only the second one counts.
    for _ in range(2):
        wait()
        start = time.perf_counter()
        step.packed_step(packed)
        wait()
        seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds / sum(packed.lengths)
