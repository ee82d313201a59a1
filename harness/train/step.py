"""The one training step that profiling times and tuning runs.

A step is `sequences_per_step` sequences: so many micro-steps (forward and backward of one micro-batch, gradients
added up), then one update of the adapter. Logits are computed for the answer's tokens alone: no other token has a
loss, and over a vocabulary of 150,000 the rest would cost more than the model's body does.
"""

import torch
from torch.nn.functional import cross_entropy

from harness.records import Recipe
from harness.train.batches import Batch


def answer_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of the answer tokens given all before them; a scalar in fp32.

    Equal to the loss of `model(input_ids, labels=...)` with every other label masked.
    """
    count = batch.answer_tokens
    # The token before the answer predicts its first one; the last token predicts nothing that is known.
    logits = model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=count + 1).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch.input_ids[:, -count:].flatten())


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

    def micro_step(self, batch: Batch, micro_steps: int | None = None) -> torch.Tensor:
        """Forward and backward of one of the step's `micro_steps` micro-batches, by default as the recipe divides it.

        Returns the mean loss in nats a token, not yet synchronised.
        """
        loss = answer_loss(self.model, batch)
        scaled = loss / (micro_steps or self.recipe.micro_steps_per_step)
        (self.scaler.scale(scaled) if self.scaler else scaled).backward()
        return loss.detach()

    def update(self) -> None:
        """One optimiser step on the gradients so far, which are then cleared."""
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
