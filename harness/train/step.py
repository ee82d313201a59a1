"""The one training step that profiling times and tuning runs.

A step is `sequences_per_step` sequences: so many micro-steps (forward and backward of one micro-batch, gradients
added up), then one update of the adapter. Logits are computed for the answer's tokens alone: no other token has a
loss, and over a vocabulary of 150,000 the rest would cost more than the model's body does.
"""

import torch
from torch.nn.functional import cross_entropy

from harness.records import Recipe
from harness.train.batches import Batch, Packed


def answer_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of the answer tokens given all before them; a scalar in fp32.

    Equal to the loss of `model(input_ids, labels=...)` with every other label masked.
    """
    count = batch.answer_tokens
    # The token before the answer predicts its first one; the last token predicts nothing that is known.
    logits = model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=count + 1).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch.input_ids[:, -count:].flatten())


def packed_losses(model: torch.nn.Module, packed: Packed) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of each packed sequence's answer: fp32 [sequences].

    Each equals `answer_loss` of that sequence alone.
    """
    learned = packed.learned
    logits = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        use_cache=False,
        logits_to_keep=learned - 1,
        packed_lengths=packed.lengths,
    ).logits[0]
    each = cross_entropy(logits.float(), packed.input_ids[0, learned], reduction="none")
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
        self.scaler = torch.amp.GradScaler(device.type) if compute_dtype == "fp16" else None

    def micro_step(self, batch: Batch) -> torch.Tensor:
        """Forward and backward of one of the step's micro-batches, as the recipe divides it.

        Returns the mean loss in nats a token, not yet synchronised.
        """
        loss = answer_loss(self.model, batch)
        self._backward(loss / self.recipe.micro_steps_per_step)
        return loss.detach()

    def packed_step(self, packed: Packed) -> torch.Tensor:
        """Forward and backward of some of the step's sequences, each of which counts alike whatever its length.

        Returns the sum of their mean losses in nats a token, not yet synchronised.
        """
        loss = packed_losses(self.model, packed).sum()
        self._backward(loss / self.recipe.sequences_per_step)
        return loss.detach()

    def _backward(self, loss: torch.Tensor) -> None:
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def update(self) -> None:
        """One optimiser step on the gradients so far, which are then cleared."""
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
