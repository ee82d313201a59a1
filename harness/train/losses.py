"""The losses of a step: of whole sequences, of packed ones, and transformers' own."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch.nn.functional import cross_entropy

from harness.records.cell import REFERENCE, Recipe
from harness.train.batches import Batch, Packed
from harness.train.patch import answer_losses, has_own_head

_PLAIN_LOSS, _PACKS = "takes_plain_loss", "packs_sequences"  # attributes of a model


def mark(model: torch.nn.Module, plain_loss: bool, packs: bool) -> None:
    """Notes whether `model` is trained by transformers' own loss, and whether its sequences may be packed."""
    setattr(model, _PLAIN_LOSS, plain_loss)
    setattr(model, _PACKS, packs)


def packs(model: torch.nn.Module) -> bool:
    """Whether sequences may be packed for `model`: they then learn as each alone (harness.train.check)."""
    return getattr(model, _PACKS, True)


def answer_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats per token, of the answer tokens given all before them; a scalar in fp32.

    Equal to `reference_loss`, which looks at every token.
    """
    if getattr(model, _PLAIN_LOSS, False):
        return reference_loss(model, batch)
    count = batch.answer_tokens
    answers = batch.input_ids[:, -count:].flatten()
    if has_own_head(model):
        # The token before the answer predicts its first one; what the last token predicts has no label.
        tokens = batch.input_ids.shape[1]
        rows = torch.arange(tokens - count - 1, tokens - 1, device=batch.input_ids.device)
        return answer_losses(model, batch.input_ids, rows, answers).mean()
    # One logit more than answers: the last token predicts what has no label.
    logits = model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=count + 1).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), answers)


def loss_of(recipe: Recipe, compute: torch.dtype = torch.float32) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
    """The loss that the recipe's implementation trains by, with products in `compute`."""
    if recipe.implementation != REFERENCE:
        return answer_loss
    return partial(reference_loss, autocast=compute) if under_autocast(recipe, compute) else reference_loss


def under_autocast(recipe: Recipe, compute: torch.dtype) -> bool:
    """Whether the recipe's step with products in `compute` runs under torch.autocast."""
    return recipe.implementation == REFERENCE and recipe.autocast and compute in (torch.bfloat16, torch.float16)


def reference_loss(model: torch.nn.Module, batch: Batch, autocast: torch.dtype | None = None) -> torch.Tensor:
    """transformers' own loss: logits of every token, labels of all but the answer masked; a scalar.

    `autocast` is the dtype that torch.autocast multiplies in, as in transformers' Trainer; None is without it.
    """
    labels = batch.input_ids.clone()
    labels[:, : -batch.answer_tokens] = -100
    with torch.autocast(batch.input_ids.device.type, autocast) if autocast else nullcontext():
        outputs = model(input_ids=batch.input_ids, labels=labels, use_cache=False)
    return outputs.loss


def packed_losses(model: torch.nn.Module, packed: Packed) -> torch.Tensor:
    """Mean cross-entropy, in nats per token, of each packed sequence's answer: fp32 [sequences].

    Each equals `answer_loss` of that sequence alone.
    """
    # The token at `rows` predicts the one after it.
    rows, targets = packed.answer_positions - 1, packed.input_ids[0, packed.answer_positions]
    layout = {"position_ids": packed.position_ids, "packed_lengths": packed.lengths}
    if has_own_head(model):
        token_losses = answer_losses(model, packed.input_ids, rows, targets, **layout)
    else:
        logits = model(input_ids=packed.input_ids, use_cache=False, logits_to_keep=rows, **layout).logits[0]
        token_losses = cross_entropy(logits.float(), targets, reduction="none")
    return torch.stack([losses.mean() for losses in token_losses.split(packed.answer_tokens)])
