"""Batches of token sequences whose last tokens are the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from harness.records.cell import Recipe


@dataclass(frozen=True)
class Batch:
    """`input_ids`: int64 [sequences, tokens]; the last `answer_tokens` of each sequence have a loss."""

    input_ids: torch.Tensor
    answer_tokens: int


@dataclass(frozen=True)
class Packed:
    """Sequences of any lengths one behind the other in one row, so that no padding is computed.

    `input_ids`: int64 [1, tokens]. `lengths`: tokens of each sequence. `answer_tokens`: how many of the last tokens of
    each have a loss. `position_ids`: int64 [1, tokens], each sequence counts from 0. `answer_positions`: int64 [answer
    tokens of all sequences], columns of `input_ids` whose tokens have a loss. No sequence attends to another
    (harness.train.ops.attention).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    answer_positions: torch.Tensor
    lengths: tuple[int, ...]
    answer_tokens: tuple[int, ...]


def pack(sequences: Sequence[tuple[Sequence[int], int]], device: torch.device) -> Packed:
    """(token ids, answer tokens) of each sequence as one row on `device`."""
    lengths = tuple(len(tokens) for tokens, _ in sequences)
    answers = tuple(n for _, n in sequences)
    ids = torch.tensor([token for tokens, _ in sequences for token in tokens])
    positions = [torch.arange(n) for n in lengths]
    columns = [torch.arange(end - n, end) for end, n in zip(accumulate(lengths), answers, strict=True)]
    # One transfer for all three, from pinned memory: the host goes on while the card still works at the pack before.
    whole = torch.cat([ids, *positions, *columns])
    if device.type == "cuda":
        whole = whole.pin_memory()
    parts = whole.to(device, non_blocking=True).split([len(ids), len(ids), sum(answers)])
    return Packed(parts[0][None], parts[1][None], parts[2], lengths, answers)


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in packs of at most `budget` tokens; a longer sequence is a pack of its own.

    First fit, the longest first: the first pack needs most memory, and few packs are left half empty.
    """
    packs: list[tuple[int, list[int]]] = []
    # Each sequence goes into the first pack with room for it, else it opens one.
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for k, (used, members) in enumerate(packs):
            if used + lengths[i] <= budget:
                packs[k] = (used + lengths[i], [*members, i])
                break
        else:
            packs.append((lengths[i], [i]))
    return [members for _, members in packs]


def random_batch(vocab_size: int, context: int, recipe: Recipe, device: torch.device, seed: int) -> Batch:
    """One micro-batch of sequences of exactly `context` random tokens: no padding, nothing to mask."""
    # Drawn on the CPU, so that every device gets the same tokens.
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (recipe.micro_batch, context), generator=generator)
    return Batch(ids.to(device), min(recipe.answer_tokens(context), context - 1))
