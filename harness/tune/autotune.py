"""How many tokens a fine-tune takes at once, and whether it makes activations again: predicted, then tried on prompts.

What harness.measure.autotune does for a profile's cells, on the model that is loaded already.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from harness.hardware.device import synchronizer
from harness.predict.prediction import Prediction
from harness.predict.variants import MEASURED, describe, recipe_variants
from harness.records.arm import TuneSpec
from harness.records.cell import Cell
from harness.train import recompute
from harness.train.batches import first_fit_decreasing, pack
from harness.train.step import TrainingStep

Sequences = Sequence[tuple[Sequence[int], int]]  # (token ids, answer tokens) each


@dataclass(frozen=True)
class PackSetting:
    tokens: int  # of the sequences packed into one forward and backward, unless a single one is longer
    recompute: str  # a Recipe's `gradient_checkpointing`

    def __str__(self) -> str:
        return f"{self.tokens} tokens at once{describe(self.recompute)}"


def variants(spec: TuneSpec, foresee: Callable[[Cell], Prediction | None]) -> list[PackSetting]:
    """What is worth trying, the most promising first; the recipe's own alone where nothing can be predicted."""
    recipe = replace(spec.recipe, micro_batch=1)
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
    """The one with most tokens a second of the first two of `tried` that run, put to use in `model`.

    Raises torch.OutOfMemoryError where none of them has the memory.
    """
    seconds: dict[PackSetting, float] = {}
    for setting in tried:
        note(f"fitting: {setting} ...")
        recompute.apply(model, setting.recompute)
        try:
            seconds[setting] = seconds_per_token(model, sequences, setting.tokens, spec)
        except (torch.OutOfMemoryError, MemoryError):
            note(f"{setting}: out of memory")
            model.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
        if len(seconds) == MEASURED:
            break
    if not seconds:
        raise torch.OutOfMemoryError("no variant fits")
    best = min(seconds, key=lambda setting: seconds[setting])
    recompute.apply(model, best.recompute)
    rates = "; ".join(f"{setting} {1 / s:.0f} tokens/s" for setting, s in seconds.items())
    note(f"fitted: {best} ({rates})" if len(seconds) > 1 else f"fitted: {best}")
    return best


def seconds_per_token(model: torch.nn.Module, sequences: Sequences, tokens: int, spec: TuneSpec) -> float:
    """Of the fullest pack's forward and backward, the second time it runs; no gradient is left behind."""
    device = next(model.parameters()).device
    step, wait = TrainingStep(model, spec.recipe, spec.compute_dtype, device), synchronizer(device)
    members = first_fit_decreasing([len(ids) for ids, _ in sequences], tokens)[0]
    packed = pack([sequences[i] for i in members], device)
    for _ in range(2):
        wait()
        start = time.perf_counter()
        step.packed_step(packed)
        wait()
        seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds / sum(packed.lengths)
