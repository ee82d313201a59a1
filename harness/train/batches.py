"""Batches of token sequences whose last tokens are the answer."""

from dataclasses import dataclass

import torch

from harness.records import Recipe


@dataclass(frozen=True)
class Batch:
    """`input_ids`: int64 [sequences, tokens]; the last `answer_tokens` of each sequence have a loss."""

    input_ids: torch.Tensor
    answer_tokens: int


def random_batch(vocab_size: int, context: int, recipe: Recipe, device: torch.device, seed: int) -> Batch:
    """One micro-batch of sequences of exactly `context` random tokens: no padding, nothing to mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (recipe.micro_batch, context), generator=generator)
    return Batch(ids.to(device), min(recipe.answer_tokens(context), context - 1))
