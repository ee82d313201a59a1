"""Test-time fine-tuning of one adapter on the puzzles' own demonstrations, with the step that profiling times."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.arc.prompt import Prompt, fitted
from harness.arc.tasks import Puzzle
from harness.errors import UserError
from harness.records import Recipe
from harness.train.batches import Batch
from harness.train.step import TrainingStep
from harness.tune.arms import Arm
from harness.tune.sets import Example

WARM_STEPS = 10
_HOPELESS = 2000  # examples in a row that do not fit the context


@dataclass
class Tuned:
    """What training gave: mean answer loss of each step in nats a token, seconds, and how many examples were used."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    used: int = 0
    too_long: int = 0


class Adapter:
    """The adapter's first values, to start every arm from the same ones without loading the model again."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.first = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def reset(self) -> None:
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if name in self.first:
                    p.copy_(self.first[name])


def tune(
    model: torch.nn.Module,
    tokenizer: Any,
    puzzles: Sequence[Puzzle],
    arm: Arm,
    recipe: Recipe,
    compute_dtype: str,
    steps: int,
    encoding: str,
    context: int,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Tuned:
    """Trains the adapter for `steps` optimiser steps of the recipe's sequences; the baseline arm is not trained.

    The rate is constant after ten steps of warm-up. No test output is among the arguments. Raises UserError where no
    example fits `context`.
    """
    found = Tuned()
    if arm.examples is None or steps == 0:
        return found
    device = next(model.parameters()).device
    step = TrainingStep(model, recipe, compute_dtype, device)
    prompts = _prompts(arm.stream(puzzles, seed), tokenizer, encoding, context, found)
    for number in range(steps):
        start = time.perf_counter()
        for group in step.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (number + 1) / WARM_STEPS)
        total = torch.zeros((), device=device)
        # One sequence a micro-step: lengths differ, and padding would be computed for nothing.
        for _ in range(recipe.sequences_per_step):
            prompt = next(prompts)
            ids = torch.tensor([prompt.ids], device=device)
            total += step.micro_step(Batch(ids, prompt.answer), recipe.sequences_per_step)
        step.update()
        found.losses.append(total.item() / recipe.sequences_per_step)  # waits for the device
        found.seconds += time.perf_counter() - start
        on_step(number + 1, found.losses[-1])
    return found


def _prompts(
    examples: Iterator[Example], tokenizer: Any, encoding: str, context: int, found: Tuned
) -> Iterator[Prompt]:
    missed = 0
    for example in examples:
        prompt = fitted(tokenizer, example.pairs, example.input, example.output, encoding, context)
        if prompt is None:
            found.too_long, missed = found.too_long + 1, missed + 1
            if missed >= _HOPELESS:
                break
            continue
        found.used, missed = found.used + 1, 0
        yield prompt
    raise UserError(f"no training example fits {context} tokens; ask for a longer context with --context")
