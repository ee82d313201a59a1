"""Tries the kernels that were fastest alone in a whole micro-step, against the plain ones.

harness.train.ops.autoselect times each part alone. In the step a kernel also changes what the allocator, the caches and
the launches before and after it do, so what wins alone may lose there. Both sets run in turns (A B A B) on the loaded
model, for seconds; the answer is kept in the user's cache, and later processes switch without trying.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import msgspec
import torch

from harness import files
from harness.catalog.kernels import ATTENTION, POINTWISE
from harness.hardware.device import synchronizer
from harness.records.cell import Recipe
from harness.train import check, distributed
from harness.train.batches import Batch, random_batch
from harness.train.compat import quiet
from harness.train.losses import loss_of
from harness.train.ops import attention
from harness.train.ops.autoselect import KernelChoice, Shapes, cache_name

TOKENS = {"cpu": 64, "cuda": 2048}  # of the micro-step at most
_ROUNDS, _FEWEST_ROUNDS, _SECONDS = 7, 2, 2.0  # rounds are run until the seconds are used up
_SLOW_S = 0.5  # a micro-step that takes longer is run once by each
_LONGEST_S = 5.0  # one that takes longer is not tried
_WINS_BELOW = 1.0  # share of the plain kernels' time that the chosen ones must stay below

Forwards = dict[torch.nn.Module, Callable | None]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


@dataclass(frozen=True)
class Trial:
    """What it takes to set kernels of a loaded model again: `own_forwards` are those before any was replaced."""

    choice: KernelChoice
    support: check.Supported
    own_forwards: Forwards
    shapes: Shapes


@dataclass(frozen=True)
class Outcome:
    """The kernels that stay, as rows have them; `unpatched` as harness.train.check.apply returns it, None as before."""

    kernels: str
    notes: tuple[str, ...] = ()
    unpatched: tuple[str, ...] | None = None


def confirm(
    model: Any,
    trial: Trial,
    recipe: Recipe,
    device: torch.device,
    context: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Leaves `model` with the kernels of `trial.choice` or with its plain ones, whichever are faster in a micro-step of
    at most `context` tokens. Where that is too slow, or memory does not suffice, the choice stays."""
    chosen, plain = KernelChoice(trial.choice.of), KernelChoice(trial.choice.plain)
    name = cache_name(trial.shapes, device, model.get_input_embeddings().weight.dtype, f"{chosen} or {plain}")
    ours = forwards(model)
    # The plain kernels are put where the chosen ones are; comparing them with the model's own takes part of a second.
    others: list[tuple[Forwards, tuple[str, ...]]] = []

    def use_plain() -> None:
        if not others:
            set_forwards(model, trial.own_forwards)
            with quiet():
                unpatched = tuple(check.apply(model, trial.support, plain.of[POINTWISE]))
            others.append((forwards(model), unpatched))
        set_forwards(model, others[0][0])
        attention.set_kernel(model, plain.of[ATTENTION])

    def use_chosen() -> None:
        set_forwards(model, ours)
        attention.set_kernel(model, chosen.of[ATTENTION])

    def measured() -> dict[str, float]:
        tokens = min(TOKENS[device.type], context)
        batch = random_batch(model.config.get_text_config().vocab_size, tokens, recipe, device, seed=0)
        sides = {str(chosen): use_chosen, str(plain): use_plain}
        try:
            return compare(sides, lambda: micro_step(model, batch, recipe), synchronizer(device), clock)
        except torch.OutOfMemoryError:
            return {}  # the step itself will say so, or run with smaller packs
        finally:
            use_chosen()
            if device.type == "cuda":
                torch.cuda.empty_cache()

    def seconds_of_both() -> dict[str, float]:
        kept = files.read_cache(name, lambda raw: _seconds(raw, chosen, plain))
        if kept is None and (kept := measured()):
            files.write_cache(name, kept)
        return kept or {}

    # Measured in the first process alone: the others wait for what it says.
    seconds = distributed.from_first(seconds_of_both)
    if not seconds:
        return Outcome(str(chosen))
    times = f"{1000 * seconds[str(chosen)]:.3g} ms by {chosen}, {1000 * seconds[str(plain)]:.3g} ms by {plain}"
    if seconds[str(chosen)] < _WINS_BELOW * seconds[str(plain)]:
        return Outcome(str(chosen), (f"a micro-step takes {times}",))
    use_plain()
    note = f"{plain} is used, for in a micro-step what is fastest alone is no faster: {times}"
    return Outcome(str(plain), (note,), others[0][1])


def compare(
    sides: dict[str, Callable[[], None]], run: Callable[[], None], wait: Callable[[], None], clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of `run` by each side, after the function that sets it; in turns. Empty where it is too slow."""

    def timed(use: Callable[[], None]) -> float:
        use()
        wait()
        start = clock()
        run()
        wait()
        return clock() - start

    # First calls compile and load; of their seconds the second ones say how slow a step is.
    slowest = 0.0
    for use in sides.values():
        timed(use)
        slowest = max(slowest, timed(use))
        if slowest > _LONGEST_S:
            return {}
    samples: dict[str, list[float]] = {name: [] for name in sides}
    began_s = clock()
    for taken in range(1 if slowest > _SLOW_S else _ROUNDS):
        if taken >= _FEWEST_ROUNDS and clock() - began_s > _SECONDS:
            break
        for name, use in sides.items():
            samples[name].append(timed(use))
    return {name: median(seconds) for name, seconds in samples.items()}


def micro_step(model: Any, batch: Batch, recipe: Recipe) -> None:
    """Forward and backward that leave neither gradients nor another state of the random generators behind."""
    devices = [batch.input_ids.device] if batch.input_ids.is_cuda else []
    with torch.random.fork_rng(devices), attention.kernel_set(model):
        loss_of(recipe)(model, batch).backward()
    for p in model.parameters():
        p.grad = None


def forwards(model: torch.nn.Module) -> Forwards:
    """The forward that each module has of its own, None where it is its class's."""
    return {module: vars(module).get("forward") for module in model.modules()}


def set_forwards(model: torch.nn.Module, saved: Forwards) -> None:
    """Sets what `forwards` returned."""
    for module, forward in saved.items():
        if forward is not None:
            module.forward = forward
        else:
            vars(module).pop("forward", None)


def _seconds(raw: Any, chosen: KernelChoice, plain: KernelChoice) -> dict[str, float]:
    """Kept seconds. Raises ValueError where they are none, or of other kernels."""
    try:
        seconds = msgspec.convert(raw, dict[str, Seconds])
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None
    if set(seconds) != {str(chosen), str(plain)}:
        raise ValueError("of other kernels")
    return seconds
