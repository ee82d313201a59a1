"""Fine-tunes an adapter with the same training step that `bench` times. Works on tokens and knows no ARC."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import torch

from harness.train.packing import Packing, PackSetting, default_tokens_at_once, run_step
from harness.train.step import RanOut, TrainingStep

WARM_STEPS = 10  # of linear learning-rate warm-up


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
    packing: Packing | None = None,
) -> Tuned:
    """Trains the adapter of `step`'s model for `steps` optimiser steps on (token ids, answer tokens).

    The learning rate is the recipe's, constant after ten steps of warm-up. After each step `on_step` receives its
    number, its loss and a function that returns the training state. A call with that state as `resume`, and with the
    sequences that follow, ends with the same adapter as an uninterrupted one. Sequences are packed as `packing` says;
    the default needs little memory. Where memory runs out, the step is run again on the same sequences with less of it;
    raises torch.OutOfMemoryError where nothing is left to give way.
    """
    adapter, recipe, tuned = Adapter(step.model), step.recipe, Tuned()
    # The random state too: dropout must draw what it would have drawn.
    if resume:
        tuned = Tuned(**resume["tuned"])
        adapter.restore(resume["adapter"])
        step.load_state_dict(resume["step"])
        _set_random_state(step, resume["random"])

    def state() -> dict:
        return {
            "tuned": asdict(tuned),
            "adapter": adapter.values(),
            "step": step.state_dict(),
            "random": _random_state(step),
        }

    packing = packing or Packing(step.model, PackSetting(default_tokens_at_once(step.model)))
    for number in range(len(tuned.losses), steps):
        start = time.perf_counter()
        step.set_learning_rate(recipe.learning_rate * min(1.0, (number + 1) / WARM_STEPS))
        batch = list(islice(sequences, recipe.sequences_per_step))
        # `item` waits for the device, so the seconds are of finished work.
        tuned.losses.append(run_step(step, batch, packing, f"in step {number + 1}").item())
        tuned.seconds += time.perf_counter() - start
        on_step(number + 1, tuned.losses[-1], state)
    return tuned


def rehearse(step: TrainingStep, packing: Packing, context: int, answer_tokens: int) -> None:
    """Runs the fullest pack that can come, sequences of `context` tokens, so that memory runs out now and not later.

    `packing` gives way until it fits. Nothing is learned, and no random number is used up.
    """
    state = _random_state(step)
    while True:
        # Which tokens they are says nothing of memory.
        fullest = [([0] * context, min(answer_tokens, context - 1))] * max(1, packing.setting.tokens // context)
        try:
            step.rehearse(fullest, packing.setting.tokens)
            break
        except RanOut as problem:
            reason = str(problem)
        if not packing.shrink(context, "with the fullest pack"):
            raise torch.OutOfMemoryError(reason)
    _set_random_state(step, state)


def _random_state(step: TrainingStep) -> list[torch.Tensor]:
    """States of the random generators of the CPU and of the step's card; other cards are others'."""
    device = step.params[0].device
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(step: TrainingStep, states: list[torch.Tensor]) -> None:
    device = step.params[0].device
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
