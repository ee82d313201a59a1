"""Fine-tunes an adapter with the same training step that `bench` times. Works on tokens and knows no ARC."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch

from harness.train.step import TrainingStep

WARM_STEPS = 10  # of linear learning-rate warm-up
_ACTIVATION_BYTES = 2**29  # that one forward may keep for its backward


@dataclass
class Tuned:
    """The mean answer loss of each step in nats per token, and the seconds of all steps together."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Adapter:
    """The adapter's initial values, so that every arm or task starts equal without loading the model again."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.first = {name: p.detach().clone() for name, p in self._trained()}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def reset(self) -> None:
        self.restore(self.first)

    def values(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self._trained()}

    def restore(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._trained():
                p.copy_(values[name])


def tune(
    step: TrainingStep,
    sequences: Iterator[tuple[Sequence[int], int]],
    steps: int,
    *,
    on_step: Callable[[int, float, Callable[[], dict]], None] = lambda number, loss, state: None,
    resume: dict | None = None,
    tokens_at_once: int | None = None,
) -> Tuned:
    """Trains the adapter of `step`'s model for `steps` optimiser steps on (token ids, answer tokens).

    The learning rate is the recipe's, constant after ten steps of warm-up. After each step `on_step` receives its
    number, its loss and a function that returns the training state. A call with that state as `resume`, and with the
    sequences that follow, ends with the same adapter as an uninterrupted one. Sequences are packed to `tokens_at_once`
    tokens; the default needs little memory.
    """
    adapter, recipe, tuned = Adapter(step.model), step.recipe, Tuned()
    # The random state too: dropout must draw what it would have drawn.
    if resume:
        tuned = Tuned(**resume["tuned"])
        adapter.restore(resume["adapter"])
        step.load_state_dict(resume["step"])
        _set_random_state(resume["random"])

    def state() -> dict:
        return {
            "tuned": asdict(tuned),
            "adapter": adapter.values(),
            "step": step.state_dict(),
            "random": _random_state(),
        }

    budget = tokens_at_once or default_tokens_at_once(step.model)
    for number in range(len(tuned.losses), steps):
        start = time.perf_counter()
        step.set_learning_rate(recipe.learning_rate * min(1.0, (number + 1) / WARM_STEPS))
        batch = list(islice(sequences, recipe.sequences_per_step))
        # `item` waits for the device, so the seconds are of finished work.
        tuned.losses.append(step.run(batch, budget).item())
        tuned.seconds += time.perf_counter() - start
        on_step(number + 1, tuned.losses[-1], state)
    return tuned


def default_tokens_at_once(model: Any) -> int:
    """Tokens of one forward and backward whose activations take about half a GiB.

    A small model packs several sequences this way; one at a time, its many small operations would take the time.
    """
    # About 40 values per token, layer and unit of width are kept for the backward.
    config = model.get_base_model().config.get_text_config()
    kept = 40 * config.num_hidden_layers * config.hidden_size * model.get_input_embeddings().weight.element_size()
    return _ACTIVATION_BYTES // kept


def _random_state() -> list[torch.Tensor]:
    """States of the random generators of the CPU and of the GPUs."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_state(states: list[torch.Tensor]) -> None:
    # On another number of GPUs their generators cannot be restored; training goes on with their own.
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.device_count() == len(states) - 1:
        torch.cuda.set_rng_state_all(states[1:])
