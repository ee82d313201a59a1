"""Whole optimiser steps as a fine-tune runs them: sequences of ARC's lengths, packed, moved to the device, updated.

A micro-step of full sequences is the worst case, and of one shape; a fine-tune meets another shape at every pack.
"""

from collections.abc import Callable
from random import Random
from statistics import fmean
from typing import Any

from harness.arc.lengths import PUBLISHED
from harness.records.cell import Cell
from harness.train import distributed
from harness.train.packing import Packing, PackSetting, default_tokens_at_once, run_step
from harness.train.step import TrainingStep

_POOL = 12  # steps whose sequences are drawn before any is timed
_PATIENCE = 4  # times the seconds of sampling: where three steps take longer, they are not timed


class ArcSteps:
    """Steps of random tokens in `cell`'s recipe, the same ones in every process. Longer sequences than the context are
    dropped, as training drops them."""

    def __init__(self, step: TrainingStep, cell: Cell, vocab_size: int, seed: int):
        self.step, self.cell, rng = step, cell, Random(seed)
        self.pool = [
            [
                (rng.choices(range(vocab_size), k=n), min(cell.recipe.answer_tokens(n), n - 1))
                for n in PUBLISHED.draw(cell.context, cell.recipe.sequences_per_step, rng)
            ]
            for _ in range(_POOL)
        ]
        # As harness.tune packs them; a recipe with larger micro-batches has shown that they fit.
        most = max(cell.context * cell.recipe.micro_batch, default_tokens_at_once(step.model))
        tokens = min(distributed.all_gather(most))
        self.packing = Packing(step.model, PackSetting(tokens, cell.recipe.gradient_checkpointing))
        self.runs = 0

    def run(self) -> None:
        """The next step."""
        sequences = self.pool[self.runs % _POOL]
        self.runs += 1
        run_step(self.step, sequences, self.packing, "over ARC's lengths")

    def measured(self, timed: Callable[..., list[float]], micro_s: list[float], max_seconds: float) -> dict[str, Any]:
        """The fields of a Measurement, by `timed(max_seconds=...)`: seconds of steps without the first.

        No seconds where no sequence fits, or where `micro_s` says that three steps would take far too long.
        """
        untimed = {"arc_pack_tokens": self.packing.setting.tokens}
        if not self.pool[0]:
            return untimed
        tokens = [sum(len(ids) for ids, _ in sequences) for sequences in self.pool]
        per_token = fmean(micro_s) / (self.cell.context * self.cell.recipe.micro_batch * distributed.world_size())
        if 3 * per_token * fmean(tokens) > _PATIENCE * max_seconds:
            return untimed
        seconds = timed(max_seconds=max_seconds)
        return {
            "arc_step_s": seconds,
            "arc_step_tokens": [tokens[number % _POOL] for number in range(1, len(seconds) + 1)],
            "arc_pack_tokens": self.packing.setting.tokens,
        }
