"""The one training step that profiling times and tuning runs.

A step is `sequences_per_step` sequences: so many micro-steps (forward and backward of one micro-batch, gradients
added up), then one update of the adapter. Logits are computed for the answer's tokens alone: no other token has a
loss, and over a vocabulary of 150,000 the rest would cost more than the model's body does.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from harness.records.cell import REFERENCE, Recipe
from harness.train import distributed
from harness.train.batches import Batch, Packed, cut, pack
from harness.train.patch import answer_losses, has_own_head


def answer_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of the answer tokens given all before them; a scalar in fp32.

    Equal to `reference_loss`, which looks at every token.
    """
    count = batch.answer_tokens
    answers = batch.input_ids[:, -count:].flatten()
    if has_own_head(model):
        # The token before the answer predicts its first one; the last token predicts nothing that is known.
        tokens = batch.input_ids.shape[1]
        rows = torch.arange(tokens - count - 1, tokens - 1, device=batch.input_ids.device)
        return answer_losses(model, batch.input_ids, rows, answers).mean()
    logits = model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=count + 1).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), answers)


def reference_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The same as transformers' own loss: logits of every token, labels of all but the answer masked."""
    labels = batch.input_ids.clone()
    labels[:, : -batch.answer_tokens] = -100
    return model(input_ids=batch.input_ids, labels=labels, use_cache=False).loss


def packed_losses(model: torch.nn.Module, packed: Packed) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of each packed sequence's answer: fp32 [sequences].

    Each equals `answer_loss` of that sequence alone.
    """
    rows, targets = packed.learned - 1, packed.input_ids[0, packed.learned]
    how = {"position_ids": packed.position_ids, "packed_lengths": packed.lengths}
    if has_own_head(model):
        each = answer_losses(model, packed.input_ids, rows, targets, **how)
    else:
        logits = model(input_ids=packed.input_ids, use_cache=False, logits_to_keep=rows, **how).logits[0]
        each = cross_entropy(logits.float(), targets, reduction="none")
    return torch.stack([part.mean() for part in each.split(packed.answers)])


class TrainingStep:
    """Micro-steps and updates of one adapter.

    fp16 needs a gradient scaler, for its gradients underflow; the adapter itself is kept in fp32 in every 16-bit
    precision (Micikevicius et al. 2018, section 3).
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, compute_dtype: str, device: torch.device):
        self.model, self.recipe = model, recipe
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr=recipe.learning_rate, fused=device.type in ("cpu", "cuda"))
        self.is_reference = recipe.implementation == REFERENCE
        self.scaler = torch.amp.GradScaler(device.type) if compute_dtype == "fp16" else None

    def run(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> torch.Tensor:
        """One whole step: (token ids, answer tokens) of each sequence, packed to `tokens_at_once`, and the update.

        Each sequence counts alike whatever its length. Returns the mean loss in nats a token, not yet synchronised.
        """
        device, total = self.params[0].device, torch.zeros((), device=self.params[0].device)
        count = len(sequences)
        sequences = [sequences[i] for i in distributed.mine([len(ids) for ids, _ in sequences])]
        if self.is_reference:
            for ids, answer in sequences:
                total += self._backward(reference_loss(self.model, Batch(torch.tensor([ids], device=device), answer)))
        else:
            for members in cut([len(ids) for ids, _ in sequences], tokens_at_once):
                total += self.packed_step(pack([sequences[i] for i in members], device))
        self.update()
        return distributed.total(total) / count

    def micro_step(self, batch: Batch) -> torch.Tensor:
        """Forward and backward of one of the step's micro-batches, as the recipe divides it.

        Returns the mean loss in nats a token, not yet synchronised.
        """
        loss = (reference_loss if self.is_reference else answer_loss)(self.model, batch)
        return self._backward(loss * len(batch.input_ids)) / len(batch.input_ids)

    def packed_step(self, packed: Packed) -> torch.Tensor:
        """Forward and backward of some of the step's sequences, each of which counts alike whatever its length.

        Returns the sum of their mean losses in nats a token, not yet synchronised.
        """
        return self._backward(packed_losses(self.model, packed).sum())

    def _backward(self, losses: torch.Tensor) -> torch.Tensor:
        """Of the sum of some sequences' mean losses, each of which has its share in the step."""
        share = losses / self.recipe.sequences_per_step
        (self.scaler.scale(share) if self.scaler else share).backward()
        return losses.detach()

    def update(self) -> None:
        """One optimiser step on the gradients so far, of all processes, which are then cleared."""
        distributed.add_up(self.params)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def state_dict(self) -> dict:
        """The optimiser's and the scaler's state, to go on from."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict() if self.scaler else None}

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
