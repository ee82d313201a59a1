"""Whether a saved state belongs to the run that would go on from it: a file in a results folder is data, not trust."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import torch

from harness.arc.dataset import MOST_MISSES, Answers
from harness.arc.task import LARGEST, Grid, Task
from harness.errors import first_line
from harness.records.arm import ATTEMPTS, TuneSpec
from harness.tune.finetune import Tuned
from harness.tune.outcome import ArmOutcome, Choices, eval_steps


def checked(
    state: dict[str, Any], spec: TuneSpec, groups: Sequence[Sequence[Task]], adapter: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """`state` ({"done": outcomes, "current": training}), if a run of `spec` over `groups` of tasks can have saved it.

    `adapter` holds the tensors of the run's adapter by name. Raises ValueError, naming what does not fit.
    """
    try:
        done = msgspec.convert(state.get("done", []), list[ArmOutcome])
        current = msgspec.convert(state.get("current"), dict[str, Any] | None)
        if len(done) > len(groups) or (current and len(done) == len(groups)):
            raise ValueError("more outcomes than adapters")
        for outcome, tasks in zip(done, groups, strict=False):
            _check_outcome(outcome, spec, tasks)
        if current:
            current = _training(current, spec, groups[len(done)], adapter)
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as problem:
        raise ValueError(first_line(problem)) from None
    return {"done": [asdict(outcome) for outcome in done], **({"current": current} if current else {})}


def _check_outcome(outcome: ArmOutcome, spec: TuneSpec, tasks: Sequence[Task]) -> None:
    _check_answers(outcome.answers, spec, tasks)
    _check_choices(outcome.choices, tasks)
    trained = len(outcome.step_losses)
    if trained not in (0, spec.steps) or outcome.used != trained * spec.recipe.sequences_per_step:
        raise ValueError("other numbers of steps and examples")
    never_negative = (
        outcome.train_s, outcome.decode_s, outcome.score_s, outcome.watched_s, outcome.others_core_s,
        outcome.too_long, outcome.questions, outcome.skipped,
    )  # fmt: skip
    if min(never_negative) < 0:
        raise ValueError("negative counts or seconds")
    _check_curve(outcome.curve, spec, tasks, trained)


def _check_curve(curve: Sequence[tuple[int, Answers, Any]], spec: TuneSpec, tasks: Sequence[Task], steps: int) -> None:
    points = [point for point, *_ in curve]
    if (
        points != sorted(set(points))
        or not set(points) <= set(eval_steps(spec.steps))
        or (points and points[-1] > steps)
    ):
        raise ValueError("other points of the curve")
    for _, answers, _ in curve:
        _check_answers(answers, spec, tasks)


def _check_answers(answers: Answers, spec: TuneSpec, tasks: Sequence[Task]) -> None:
    """Raises ValueError where these are not the answers of these tasks: one per test input and view, each a grid."""
    if {task.id: [spec.views] * len(task.test_inputs) for task in tasks} != {
        name: [len(views) for views in inputs] for name, inputs in answers.items()
    }:
        raise ValueError("answers of other tasks")
    for grid in (grid for inputs in answers.values() for views in inputs for grid in views if grid is not None):
        _check_grid(grid)


def _check_choices(choices: Choices, tasks: Sequence[Task]) -> None:
    """Raises ValueError where these are not the attempts at these tasks, grids with a share of confidence."""
    if {task.id: len(task.test_inputs) for task in tasks} != {name: len(inputs) for name, inputs in choices.items()}:
        raise ValueError("attempts at other tasks")
    for tried in (tried for inputs in choices.values() for tried in inputs):
        if len(tried) > ATTEMPTS or not all(0 <= share <= 1 for _, share in tried):
            raise ValueError("attempts of another number or confidence")
        for grid, _ in tried:
            _check_grid(grid)


def _check_grid(grid: Grid) -> None:
    sizes = {len(row) for row in grid}
    if not 1 <= len(grid) <= LARGEST or len(sizes) != 1 or not 1 <= sizes.pop() <= LARGEST:
        raise ValueError("an answer that is no grid")
    if not all(0 <= cell <= 9 for row in grid for cell in row):
        raise ValueError("an answer that is no grid")


def _training(
    current: dict[str, Any], spec: TuneSpec, tasks: Sequence[Task], adapter: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """The state of a training under way, with its parts' types. Raises ValueError."""
    tuned = msgspec.convert(current["training"]["tuned"], Tuned)
    used, too_long = msgspec.convert(current["examples"], tuple[int, int])
    curve = msgspec.convert(current["curve"], list[tuple[int, Answers, list[tuple[float, int]]]])
    # States of earlier versions say nothing of the load.
    watched = msgspec.convert(current.get("watched", (0.0, 0.0)), tuple[float, float])
    steps = len(tuned.losses)
    if not 1 <= steps <= spec.steps or not min(tuned.seconds, *watched) >= 0:
        raise ValueError(f"{steps} steps of {spec.steps}")
    # Every step draws as many examples; what did not fit between them is bounded too, so that no count can loop.
    if used != steps * spec.recipe.sequences_per_step or not 0 <= too_long <= used * MOST_MISSES:
        raise ValueError("another number of examples")
    _check_curve(curve, spec, tasks, steps)
    training = current["training"]
    _check_tensors(training["adapter"], adapter)
    _check_optimizer(training["step"]["optimizer"], list(adapter.values()), steps)
    _check_random(training["random"])
    whole = {**training, "tuned": asdict(tuned)}
    return {"training": whole, "examples": (used, too_long), "curve": curve, "watched": watched}


def _check_tensors(values: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: (value.shape, value.is_floating_point()) for name, value in values.items()}
    if shapes != {name: (value.shape, True) for name, value in adapter.items()}:
        raise ValueError("an adapter of another shape")


def _check_optimizer(state: Mapping[str, Any], params: Sequence[torch.Tensor], steps: int) -> None:
    """AdamW's state: (step, exp_avg, exp_avg_sq) of every parameter, or none yet where no gradient reached it."""
    if [len(group["params"]) for group in state["param_groups"]] != [len(params)]:
        raise ValueError("an optimiser of other parameters")
    for index, moments in state["state"].items():
        for name, value in moments.items():
            if name == "step":
                if not 0 <= float(value) <= steps:
                    raise ValueError("an optimiser of another number of steps")
            elif value.shape != params[index].shape or not value.is_floating_point():
                raise ValueError("an optimiser of another shape")


def _check_random(states: Sequence[torch.Tensor]) -> None:
    own = torch.get_rng_state()
    if not states or any(state.dtype != own.dtype for state in states) or states[0].shape != own.shape:
        raise ValueError("no state of random generators")
