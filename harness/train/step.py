"""The one training step, which measuring times and fine-tuning runs.

A step is `sequences_per_step` sequences: micro-steps (forward and backward of one micro-batch) that add up gradients,
then one update of the adapter. Logits are computed for the answer's tokens alone: no other token has a loss, and over
a vocabulary of 150,000 the rest would cost more than the model's body does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from harness.errors import first_line
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import REFERENCE, Recipe
from harness.train import distributed, recompute
from harness.train.batches import Batch, Packed, first_fit_decreasing, pack
from harness.train.device_errors import ran_out
from harness.train.losses import loss_of, packed_losses, packs
from harness.train.ops import attention
from harness.train.ops.adapter_copies import AdapterCopies


class RanOut(torch.OutOfMemoryError):
    """Memory ran out before anything of a step was kept: it may be run again, with smaller packs.

    Raised in all processes where it happened in one.
    """


class TrainingStep:
    """Micro-steps and updates of one adapter.

    fp16 needs a gradient scaler, because its gradients underflow. The adapter itself is fp32 in every 16-bit precision
    (Micikevicius et al. 2018, section 3).
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, compute_dtype: str, device: torch.device):
        self.model, self.recipe = model, recipe
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr=recipe.learning_rate, fused=device.type in ("cpu", "cuda"))
        self.is_reference = recipe.implementation == REFERENCE
        self.loss_of = loss_of(recipe, TORCH_DTYPES[compute_dtype])
        # torch's own first scale of 2**16 is too high for most models: each halving costs a step that is run again.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12) if compute_dtype == "fp16" else None
        self.copies = AdapterCopies()  # of the adapter, until it changes
        self.overflows = 0  # steps that were run again for it

    def run(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> torch.Tensor:
        """One whole step: (token ids, answer tokens) of each sequence, packed to `tokens_at_once`, and the update.

        Every sequence has the same weight, whatever its length. Returns the mean loss in nats per token, a scalar on
        the device, not yet synchronised. Raises RanOut where memory ran out before the update.
        """
        scale = self.scaler.get_scale() if self.scaler else 1.0
        mean = self._step(sequences, tokens_at_once)
        # fp16: a gradient too large for the scale leaves the update out and halves the scale. The step is run again, so
        # that no update is lost; gradients that are too large at a scale of 1 are no matter of the scale.
        while self.scaler and 1.0 <= self.scaler.get_scale() < scale:
            scale = self.scaler.get_scale()
            self.overflows += 1
            mean = self._step(sequences, tokens_at_once)
        return mean

    def rehearse(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> None:
        """Forward and backward of `sequences` on every process, beside the room of the optimiser's state, no update.

        Raises RanOut where that is too much.
        """
        # AdamW has two moments per value; they come with the first update.
        moments = [torch.empty_like(p) for p in self.params for _ in range(2)] if not self.optimizer.state else []
        self._accumulate(sequences, tokens_at_once)
        self.optimizer.zero_grad(set_to_none=True)
        self.copies.forget()
        del moments

    def _step(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> torch.Tensor:
        # The mean is over all processes' sequences; each process runs its share.
        own = [sequences[i] for i in distributed.shard([len(ids) for ids, _ in sequences])]
        total = self._accumulate(own, tokens_at_once)
        self.update()
        return distributed.all_reduce(total) / len(sequences)

    def _accumulate(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> torch.Tensor:
        """The sum of the losses of `sequences`; adds up gradients. Raises RanOut, without any, if memory ran out."""
        reason = None
        self.copies.forget()
        try:
            total = self._backward_of(sequences, tokens_at_once)
        except Exception as problem:
            if not ran_out(problem):
                raise
            reason = first_line(problem)  # not the exception, which holds the tensors of the failed forward
        if distributed.any_of(reason is not None):
            self.optimizer.zero_grad(set_to_none=True)
            raise RanOut(reason or "another card ran out of memory")
        return total

    def _backward_of(self, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> torch.Tensor:
        device = self.params[0].device
        total = torch.zeros((), device=device)
        if self.is_reference or not packs(self.model):
            for ids, answer in sequences:
                # As a pack of one, for its transfer does not wait until the card is done with the sequence before.
                batch = Batch(pack([(ids, answer)], device).input_ids, answer)
                with self._set():
                    total += self._backward(self.loss_of(self.model, batch))
        else:
            for members in first_fit_decreasing([len(ids) for ids, _ in sequences], tokens_at_once):
                total += self.packed_step(pack([sequences[i] for i in members], device))
        return total

    def micro_step(self, batch: Batch) -> torch.Tensor:
        """Forward and backward of one of the step's micro-batches, of the recipe's `micro_batch` sequences.

        Returns the mean loss in nats per token, not yet synchronised.
        """
        with self._set():
            loss = self.loss_of(self.model, batch)
            return self._backward(loss * len(batch.input_ids)) / len(batch.input_ids)

    def packed_step(self, packed: Packed) -> torch.Tensor:
        """Forward and backward of some of the step's sequences, all of the same weight whatever their length.

        Returns the sum of their mean losses in nats per token, not yet synchronised.
        """
        with self._set():
            return self._backward(packed_losses(self.model, packed).sum())

    @contextmanager
    def _set(self) -> Iterator[None]:
        """Within it the model runs as a micro-step."""
        self.copies.keeps = not recompute.recomputes_all(self.model)
        with attention.kernel_set(self.model), self.copies.used():
            yield

    def _backward(self, loss_sum: torch.Tensor) -> torch.Tensor:
        """Backward of a sum of per-sequence losses, scaled by 1 / sequences_per_step; returns the sum, detached."""
        # Dividing each part by the whole step's number gives the step's mean, whatever the micro-batch.
        scaled = loss_sum / self.recipe.sequences_per_step
        (self.scaler.scale(scaled) if self.scaler else scaled).backward()
        return loss_sum.detach()

    def update(self) -> None:
        """One optimiser step on the gradients of all processes, which are then cleared."""
        self.copies.forget()
        # Gradients are added up over the micro-steps and once over the processes.
        distributed.all_reduce_gradients(self.params)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def state_dict(self) -> dict:
        """The optimiser's and the scaler's state, to resume from; the adapter is not in it."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict() if self.scaler else None}

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
