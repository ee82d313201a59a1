"""From accuracies at a few checkpoints to an accuracy after many steps, as an interval; and which candidate is best.

Two shapes are fitted to every bootstrap draw of the tasks and count alike: linear in log2(steps), the shape that
published runs support best, and the saturating power law a - b * steps**-c. The spread of tasks, of the shapes and of
the checkpoints around their curve together make the interval.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import TypeVar

import numpy as np

from harness.analysis.stats import wilson
from harness.records.arm import CurvePoint

Name = TypeVar("Name", bound=Hashable)
MAX_REACH = 8.0
MIN_CHECKPOINTS = 4
_DRAWS = 2000
_POWERS = np.array([0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5])


@dataclass(frozen=True)
class Estimate:
    """Accuracy projected to `steps`, with its 95 % interval; nan where it is `refused` for the reason given.

    `reach` is `steps` over the steps of the last checkpoint.
    """

    steps: int
    reach: float
    low: float = nan
    mid: float = nan
    high: float = nan
    refused: str = ""


def accuracy_after(checkpoints: Sequence[CurvePoint], steps: int, noise: float = 0.0, seed: int = 0) -> Estimate:
    """The accuracy after `steps`, on these tasks; refused with a reason where the checkpoints do not carry so far.

    `noise` is the standard deviation over training seeds that all tasks share: the run that is projected to is another
    training. Checkpoints before the first step do not count: a curve in log2(steps) has no zero.
    """
    # Where a curve does not carry to `steps`, and why.
    points = sorted((c for c in checkpoints if c.steps > 0), key=lambda c: c.steps)
    reach = steps / points[-1].steps if points else float("inf")
    if len(points) < MIN_CHECKPOINTS:
        return Estimate(steps, reach, refused=f"{len(points)} checkpoints; a curve needs {MIN_CHECKPOINTS}")
    if reach > MAX_REACH:
        return Estimate(steps, reach, refused=f"x{reach:.1f} beyond the last checkpoint; at most x{MAX_REACH:g}")
    losses = [c.loss for c in points if c.loss is not None]
    if len(losses) < len(points):
        return Estimate(steps, reach, refused="no answer fits the context, so whether the loss rises is not known")
    if not all(map(isfinite, losses)):
        return Estimate(steps, reach, refused="a loss is no number")
    if losses[-1] > min(losses) * 1.02:
        return Estimate(steps, reach, refused="the loss is rising: more steps would not help as before")
    # The tasks drawn again: each draw is an accuracy at every checkpoint, and by each shape one at the end.
    scores = np.array([c.scores for c in points]).T  # [tasks, checkpoints]
    tasks = len(scores)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=_DRAWS) / tasks
    curves = weights @ scores  # [draws, checkpoints]
    curve_steps = np.array([c.steps for c in points], dtype=float)
    ends = np.concatenate([_linear(curves, curve_steps, steps, rng), _saturating(curves, curve_steps, steps, rng)])
    # Tasks flip between right and wrong from one checkpoint to the next, and will once more at the end.
    flips = np.abs(np.diff(scores, axis=1)).mean() / 2
    ends = ends + rng.standard_normal(len(ends)) * np.sqrt(flips / tasks + noise**2)
    low, mid, high = (float(end) for end in np.clip(np.percentile(ends, (2.5, 50, 97.5)), 0.0, 1.0))
    # Drawing tasks again shows no spread where all are right or all wrong; few tasks leave some all the same.
    least, most = wilson(mid * tasks, tasks)
    return Estimate(steps, reach, min(low, least), mid, max(high, most))


def _linear(curves: np.ndarray, curve_steps: np.ndarray, steps: float, rng: np.random.Generator) -> np.ndarray:
    """Ends [draws] of the lines through `curves` [draws, checkpoints] against log2(steps)."""
    x = np.stack([np.ones_like(curve_steps), np.log2(curve_steps)], 1)
    return _ends(curves, x, np.array([1.0, np.log2(steps)]), rng)[0]


def _saturating(curves: np.ndarray, curve_steps: np.ndarray, steps: float, rng: np.random.Generator) -> np.ndarray:
    """Ends [draws] of a - b * steps**-c, c the one of a few that misses a draw least with b >= 0."""
    best = np.full(len(curves), np.inf)
    out = curves[:, -1].copy()
    for power in _POWERS:
        x = np.stack([np.ones_like(curve_steps), -(curve_steps**-power)], 1)
        ends, misfit, falls = _ends(curves, x, np.array([1.0, -(steps**-power)]), rng)
        better = (misfit < best) & ~falls
        out[better], best[better] = ends[better], misfit[better]
    return out


def _ends(
    curves: np.ndarray, x: np.ndarray, end: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of each draw: its value at `end` with a drawn error of prediction, its misfit, whether it falls."""
    # One pseudo-inverse serves all draws, for they share the steps.
    solve = np.linalg.pinv(x)
    coefficients = curves @ solve.T
    misfit = ((coefficients @ x.T - curves) ** 2).sum(1)
    # The standard error of the fitted value at `end`, from the residuals of each draw.
    spread = np.sqrt(misfit / (len(x) - 2)) * np.sqrt(end @ solve @ solve.T @ end)
    noise = rng.standard_t(len(x) - 2, len(curves)) * spread
    return coefficients @ end + noise, misfit, coefficients[:, 1] < 0


def chance_of_best(
    scores: Mapping[Name, Sequence[float]], noise: Sequence[float] = (), draws: int = 4000, seed: int = 0
) -> dict[Name, float]:
    """For each candidate the share of bootstrap draws of the tasks in which it scores best; ties share a draw.

    In each draw the candidates are trained anew: `noise` are the standard deviations of their accuracies over seeds.
    All candidates on the same tasks in one order. Raises ValueError for none, or for different numbers of tasks.
    """
    if not scores or len({len(by_task) for by_task in scores.values()}) != 1:
        raise ValueError("candidates are compared on the same tasks")
    table = np.array(list(scores.values()))  # [candidates, tasks]
    tasks = table.shape[1]
    rng = np.random.default_rng(seed)
    accuracies = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws) @ table.T / tasks  # [draws, candidates]
    if any(noise):
        accuracies += rng.standard_normal(accuracies.shape) * np.array(noise)
    # Ties share a draw, within rounding.
    best = accuracies >= accuracies.max(1, keepdims=True) - 1e-9
    return dict(zip(scores, (best / best.sum(1, keepdims=True)).mean(0).tolist(), strict=True))
