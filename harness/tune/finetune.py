"""Test-time fine-tuning of an adapter on tasks' own demonstrations, with the step that profiling times."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch

from harness.arc.arms import Arm
from harness.arc.examples import Example
from harness.arc.prompt import fitted
from harness.arc.task import Task
from harness.errors import UserError
from harness.records.arm import SHORTEN
from harness.records.cell import Recipe
from harness.train.step import TrainingStep

WARM_STEPS = 10
_ACTIVATION_BYTES = 2**29
_HOPELESS = 2000  # examples in a row that do not fit the context


@dataclass
class Tuned:
    """What training gave: mean answer loss of each step in nats a token, seconds, and how many examples were used."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    used: int = 0
    too_long: int = 0


class Adapter:
    """The adapter's first values, to start every arm or task from the same ones without loading the model again."""

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
    model: torch.nn.Module,
    tokenizer: Any,
    tasks: Sequence[Task],
    arm: Arm,
    recipe: Recipe,
    compute_dtype: str,
    steps: int,
    encoding: str,
    context: int,
    seed: int = 0,
    on_step: Callable[[int, float, Callable[[], dict]], None] = lambda step, loss, state: None,
    too_long: str = SHORTEN,
    begun: dict | None = None,
    tokens_at_once: int | None = None,
) -> Tuned:
    """Trains the adapter for `steps` optimiser steps of the recipe's sequences; the baseline arm is not trained.

    The rate is constant after ten steps of warm-up. No test output is among the arguments. After each step `on_step`
    is given its number, its loss, and what returns the state to go on from: as `begun` it makes this call go on there,
    to the same end. Sequences are packed to `tokens_at_once`. Raises UserError where no example fits `context`.
    """
    found = Tuned()
    if arm.examples is None or steps == 0:
        return found
    device = next(model.parameters()).device
    step = TrainingStep(model, recipe, compute_dtype, device)
    budget = tokens_at_once or max(context, _tokens_at_once(model))
    examples = arm.stream(tasks, seed)
    if begun:
        found = Tuned(**begun["found"])
        Adapter(model).restore(begun["adapter"])
        step.load_state_dict(begun["step"])
        _to_random_state(begun["random"])
        for _ in range(found.used + found.too_long):
            next(examples)
    sequences = sequences_of(examples, tokenizer, encoding, context, too_long, found)

    def state() -> dict:
        said = {"found": asdict(found), "adapter": Adapter(model).values(), "step": step.state_dict()}
        return {**said, "random": _random_state()}

    for number in range(len(found.losses), steps):
        start = time.perf_counter()
        step.set_learning_rate(recipe.learning_rate * min(1.0, (number + 1) / WARM_STEPS))
        drawn = list(islice(sequences, recipe.sequences_per_step))
        found.losses.append(step.run(drawn, budget).item())  # waits for the device
        found.seconds += time.perf_counter() - start
        on_step(number + 1, found.losses[-1], state)
    return found


def _tokens_at_once(model: torch.nn.Module) -> int:
    """How many tokens a forward and backward takes without needing much memory, about half a GiB of activations.

    Some 40 values a token, layer and unit of width are kept for the backward. A small model is packed beyond the
    context, for otherwise its many small operations are what takes the time.
    """
    config = model.get_base_model().config.get_text_config()
    kept = 40 * config.num_hidden_layers * config.hidden_size * model.get_input_embeddings().weight.element_size()
    return _ACTIVATION_BYTES // kept


def _random_state() -> list[torch.Tensor]:
    """Of the CPU and the devices: what dropout draws from."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _to_random_state(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.device_count() == len(states) - 1:
        torch.cuda.set_rng_state_all(states[1:])


def sequences_of(
    examples: Iterator[Example], tokenizer: Any, encoding: str, context: int, too_long: str, found: Tuned
) -> Iterator[tuple[Sequence[int], int]]:
    """(token ids, answer tokens) of every example that fits `context`, counted in `found`.

    Raises UserError where none fits, and where there is none.
    """
    missed = 0
    for e in examples:
        prompt = fitted(
            tokenizer, e.demonstrations, e.test_input, e.output, encoding, context, shorten=too_long == SHORTEN
        )
        if prompt is None:
            found.too_long, missed = found.too_long + 1, missed + 1
            if missed >= _HOPELESS:
                break
            continue
        found.used, missed = found.used + 1, 0
        yield prompt.ids, prompt.answer_tokens
    if missed:
        raise UserError(f"no training example fits {context} tokens; ask for a longer context with --context")
    raise UserError("no task has the two demonstrations that leave-one-out needs; use --arms baseline")
