"""Two fine-tunes on the same tasks: nats per grid and solved tasks, each with an interval and p.

The loss of a whole output tells arms apart long before solved tasks do, for every task says something. What another
training seed would change is part of both (harness.analysis.retraining).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev

import numpy as np

from harness.analysis.retraining import Noise
from harness.analysis.stats import holm, mcnemar, paired_difference, paired_p, wilson
from harness.records.arm import ArmResult

SIGNIFICANT = 0.05
_FEWEST = 2  # tasks: the difference of one has no spread
_Z95, _Z80 = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)

Interval = tuple[float, float, float]  # low, middle, high at 95 %


@dataclass(frozen=True)
class Comparison:
    """What `second` has more than `first`, on the same tasks.

    `nats` is the difference per grid (negative: better) over the `nats_tasks` tasks that have one in both; None below
    two. `gain` is that of accuracy, 0 to 1, and `solved_p` exact McNemar's. `nats_holm` and `solved_holm` are the same
    p for their number (`holm_adjusted`).
    """

    first: ArmResult
    second: ArmResult
    nats: Interval | None
    nats_p: float | None
    nats_tasks: int
    gain: Interval
    solved_p: float
    nats_holm: float | None = None
    solved_holm: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the loss or the solved tasks differ by more than chance, for the number of all p."""
        return any(p is not None and p < SIGNIFICANT for p in (self.nats_holm, self.solved_holm))

    @property
    def better(self) -> bool:
        """Whether `second` is better by what tells them apart, the loss first."""
        if self.nats and self.nats_holm is not None and self.nats_holm < SIGNIFICANT:
            return self.nats[1] < 0
        return self.gain[1] > 0

    @property
    def tasks_to_tell(self) -> int | None:
        return tasks_to_tell(self.first.solved, self.second.solved)


def compare(first: ArmResult, second: ArmResult, noise: Noise) -> Comparison:
    """`second` against `first`. Raises ValueError for results on different tasks."""
    if first.spec.tasks != second.spec.tasks:
        raise ValueError("results are compared on the same tasks")
    # An adapter that was never trained is the same under every seed.
    trained = sum(row.steps > 0 for row in (first, second))
    before, after = first.nats_by_task(), second.nats_by_task()
    common = [name for name in before if name in after and math.isfinite(before[name]) and math.isfinite(after[name])]
    nats = nats_p = None
    if len(common) >= _FEWEST:
        a, b = [before[name] for name in common], [after[name] for name in common]
        level = fmean(a + b)
        nats, nats_p = _widened(
            paired_difference(a, b), paired_p(a, b), _standard_error(a, b), noise.nats * level * math.sqrt(trained)
        )
    gain, solved_p = _widened(
        paired_difference(first.by_task, second.by_task),
        mcnemar(first.solved, second.solved),
        _standard_error(first.by_task, second.by_task),
        noise.accuracy * math.sqrt(trained),
    )
    return Comparison(first, second, nats, nats_p, len(common), gain, solved_p)


def holm_adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p for the number of all their p (Holm 1979)."""
    values = [p for c in comparisons for p in (c.nats_p, c.solved_p) if p is not None]
    adjusted = iter(holm(values))
    made = []
    for c in comparisons:
        nats = next(adjusted) if c.nats_p is not None else None
        made.append(replace(c, nats_holm=nats, solved_holm=next(adjusted)))
    return made


def against(first: ArmResult, others: Sequence[ArmResult], noise: Noise) -> list[Comparison]:
    """Each of `others` against `first`, with Holm's p over all of them."""
    return holm_adjusted([compare(first, other, noise) for other in others])


def tasks_to_tell(first: Sequence[bool], second: Sequence[bool]) -> int | None:
    """How many tasks would tell such a difference in 8 of 10 such experiments, p below 5 %; None without a difference.

    McNemar's sample size at the shares of tasks that one arm alone solves here (Connor 1987).
    """
    tasks = len(first)
    alone = sum(b and not a for a, b in zip(first, second, strict=True))
    other = sum(a and not b for a, b in zip(first, second, strict=True))
    if alone == other:
        return None
    discordant, difference = (alone + other) / tasks, (alone - other) / tasks
    root = _Z95 * math.sqrt(discordant) + _Z80 * math.sqrt(discordant - difference**2)
    return math.ceil((root / difference) ** 2)


def chosen(scores: Sequence[Sequence[float]], best: int, noise: float = 0.0, draws: int = 1000) -> Interval:
    """The accuracy of the `best` of `scores` [candidates][tasks] less what being chosen flatters it by, with interval.

    Each draw of the tasks with replacement chooses its own best; what that one shows there beyond its accuracy on all
    tasks is the flattery, its mean the correction (Efron and Tibshirani 1993, chapter 17, for the choice of a model).
    Around the corrected share stands Wilson's interval, and `noise`, the standard deviation over training seeds. In
    simulated tables with a known truth it holds 93 to 97 % (python -m bench.choices). Raises ValueError for arms on
    different numbers of tasks.
    """
    if len({len(by_task) for by_task in scores}) != 1:
        raise ValueError("candidates are compared on the same tasks")
    table = np.array(scores)  # [candidates, tasks]
    tasks = table.shape[1]
    rng = np.random.default_rng(0)
    means = table.mean(1)
    drawn = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws) @ table.T / tasks  # [draws, candidates]
    # Of several best each counts alike, within rounding.
    first = drawn >= drawn.max(1, keepdims=True) - 1e-9
    errors = drawn - means
    # Less the mean error of all, which is 0 over all draws: nothing is taken off a single one.
    flattery = (errors * first).sum(1) / first.sum(1) - errors.mean(1)
    middle = float(np.clip(means[best] - max(0.0, flattery.mean()), 0.0, 1.0))
    low, high = wilson(middle * tasks, tasks)
    return (
        max(0.0, middle - math.hypot(middle - low, _Z95 * noise)),
        middle,
        min(1.0, middle + math.hypot(high - middle, _Z95 * noise)),
    )


def _standard_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the mean difference, from its spread over the tasks."""
    gains = [b - a for a, b in zip(first, second, strict=True)]
    return stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0


def _widened(interval: Interval, p: float, error: float, noise: float) -> tuple[Interval, float]:
    """The interval and p over tasks, with `noise`, the standard deviation that seeds add to the difference.

    The interval's halves grow in quadrature; p's normal deviate shrinks by the same ratio of standard errors.
    """
    low, middle, high = interval
    if not noise or not error:
        return interval, p
    wide = middle - math.hypot(middle - low, _Z95 * noise), middle, middle + math.hypot(high - middle, _Z95 * noise)
    deviate = NormalDist().inv_cdf(1 - p / 2) * error / math.hypot(error, noise)
    return wide, 2 * (1 - NormalDist().cdf(deviate))
