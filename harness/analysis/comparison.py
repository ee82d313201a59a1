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

    `nats` is the difference per grid (negative: better), the mean over the `nats_tasks` tasks that have one in both,
    and `levels` are the two means; None below two tasks, or where a loss is no number. `gain` is the difference of
    accuracy, 0 to 1, and `solved_p` exact McNemar's. `nats_holm` and `solved_holm` are these p for the number of p in
    their table (`holm_adjusted`), and `tasks_to_tell` is at that level.
    """

    first: ArmResult
    second: ArmResult
    nats: Interval | None
    nats_p: float | None
    nats_tasks: int
    levels: tuple[float, float] | None
    gain: Interval
    solved_p: float
    nats_holm: float | None = None
    solved_holm: float | None = None
    tasks_to_tell: int | None = None

    @property
    def by_loss(self) -> bool:
        """Whether the loss tells the two apart, for the number of all p."""
        return self.nats_holm is not None and self.nats_holm < SIGNIFICANT

    @property
    def by_solved(self) -> bool:
        return self.solved_holm is not None and self.solved_holm < SIGNIFICANT

    @property
    def told_apart(self) -> bool:
        return self.by_loss or self.by_solved

    @property
    def better(self) -> bool:
        """Whether `second` is better by what tells the two apart, solved tasks first; False where nothing does."""
        if self.by_solved:
            return self.gain[1] > 0
        return self.by_loss and bool(self.nats and self.nats[1] < 0)

    @property
    def smallest_p(self) -> float:
        return min(p for p in (self.nats_holm, self.solved_holm, 1.0) if p is not None)


def compare(first: ArmResult, second: ArmResult, noise: Noise) -> Comparison:
    """`second` against `first`. Raises ValueError for results on different tasks."""
    if first.spec.tasks != second.spec.tasks:
        raise ValueError("results are compared on the same tasks")
    # An adapter that was never trained is the same under every seed.
    trained = sum(row.steps > 0 for row in (first, second))
    before, after = first.nats_by_task(), second.nats_by_task()
    common = [name for name in before if name in after]
    a, b = [before[name] for name in common], [after[name] for name in common]
    nats = nats_p = levels = None
    # A training that diverged on some tasks is not compared on the others.
    if len(common) >= _FEWEST and all(map(math.isfinite, a + b)):
        levels = fmean(a), fmean(b)
        nats, nats_p = _with_noise(a, b, paired_p(a, b), noise.nats * fmean(levels) * math.sqrt(trained))
    gain, solved_p = _with_noise(
        first.by_task, second.by_task, mcnemar(first.solved, second.solved), noise.accuracy * math.sqrt(trained)
    )
    gain = _not_certain(gain, first.by_task, second.by_task)
    return Comparison(first, second, nats, nats_p, len(common), levels, gain, solved_p)


def holm_adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p for the number of all their p (Holm 1979), and how many tasks would tell them apart by that."""
    values = [p for c in comparisons for p in (c.nats_p, c.solved_p) if p is not None]
    adjusted = iter(holm(values))
    made = []
    for c in comparisons:
        nats = next(adjusted) if c.nats_p is not None else None
        solved = next(adjusted)
        needed = tasks_to_tell(c.first.solved, c.second.solved, SIGNIFICANT / len(values))
        if needed is not None and solved >= SIGNIFICANT:
            needed = max(needed, len(c.first.solved) + 1)  # so many did not
        made.append(replace(c, nats_holm=nats, solved_holm=solved, tasks_to_tell=needed))
    return made


def against(first: ArmResult, others: Sequence[ArmResult], noise: Noise) -> list[Comparison]:
    """Each of `others` against `first`, with Holm's p over all of them."""
    return holm_adjusted([compare(first, other, noise) for other in others])


def tasks_to_tell(first: Sequence[bool], second: Sequence[bool], level: float = SIGNIFICANT) -> int | None:
    """How many tasks would tell such a difference in 8 of 10 such experiments, p below `level`; None without one.

    McNemar's sample size at the shares of tasks that one arm alone solves here (Connor 1987).
    """
    tasks = len(first)
    alone = sum(b and not a for a, b in zip(first, second, strict=True))
    other = sum(a and not b for a, b in zip(first, second, strict=True))
    if alone == other:
        return None
    discordant, difference = (alone + other) / tasks, (alone - other) / tasks
    deviate = NormalDist().inv_cdf(1 - level / 2)
    root = deviate * math.sqrt(discordant) + _Z80 * math.sqrt(discordant - difference**2)
    return math.ceil((root / difference) ** 2)


def chosen(
    scores: Sequence[Sequence[float]], best: int, noise: Sequence[float] | None = None, draws: int = 1000
) -> Interval:
    """The accuracy of the `best` of `scores` [candidates][tasks] less what being chosen flatters it by, with interval.

    Each draw of the tasks with replacement, and of a training of each candidate (`noise`: the standard deviation of
    each one's accuracy over seeds), chooses its own best; what that one shows beyond its accuracy on all tasks is the
    flattery, its mean the correction (Efron and Tibshirani 1993, chapter 17, for the choice of a model). The draws lie
    around means that are drawn together by as much of their spread as chance explains, or candidates alike would be
    taken for different ones. Around the corrected share stands Wilson's interval, widened by the noise. Of
    42 kinds of simulated tables it held the truth in 96.0 %, 90 to 99 % by kind (python -m bench.choices). Raises
    ValueError for candidates on different numbers of tasks.
    """
    if len({len(by_task) for by_task in scores}) != 1:
        raise ValueError("candidates are compared on the same tasks")
    table, seeds = np.array(scores), np.zeros(len(scores)) if noise is None else np.array(noise)
    candidates, tasks = table.shape
    rng = np.random.default_rng(0)
    means = table.mean(1)
    errors = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws) @ table.T / tasks - means
    errors = errors + rng.standard_normal(errors.shape) * seeds  # [draws, candidates]
    # What chance gives differences between candidates: their own luck on the same tasks, and their seeds'.
    own = table - table.mean(0)
    luck = own.var(1).mean() / tasks * candidates / max(1, candidates - 1) + (seeds**2).mean()
    spread = means.var(ddof=1) if candidates > 1 else 0.0
    kept = max(0.0, 1 - luck / spread) if spread else 0.0
    drawn = means.mean() + kept * (means - means.mean()) + errors
    # Of several best each counts alike, within rounding.
    first = drawn >= drawn.max(1, keepdims=True) - 1e-9
    shown = (errors * first).sum(1) / first.sum(1)
    # Less the mean error of all, which is 0 over all draws: nothing is taken off a single one.
    flattery = (shown - errors.mean(1)).mean()
    middle = float(np.clip(means[best] - max(0.0, flattery), 0.0, 1.0))
    # The best of many alike scatters less than each of them; halfway, for they may not be alike.
    typical = errors.std(0).mean()
    narrower = (1 + min(1.0, float(shown.std() / typical))) / 2 if typical else 1.0
    low, high = wilson(middle * tasks, tasks)
    return (
        max(0.0, middle - narrower * math.hypot(middle - low, _Z95 * seeds[best])),
        middle,
        min(1.0, middle + narrower * math.hypot(high - middle, _Z95 * seeds[best])),
    )


def _standard_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the mean difference, from its spread over the tasks."""
    gains = [b - a for a, b in zip(first, second, strict=True)]
    return stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0


def _not_certain(gain: Interval, first: Sequence[float], second: Sequence[float]) -> Interval:
    """The interval of a difference of accuracy where every task has the same one, by which a bootstrap is certain.

    Of `tasks` that show no other, others may be as many as Wilson's interval of 0 of them says.
    """
    low, middle, high = gain
    if len({b - a for a, b in zip(first, second, strict=True)}) > 1:
        return gain
    others = wilson(0, len(first))[1]
    low, high = middle - math.hypot(middle - low, others), middle + math.hypot(high - middle, others)
    return max(-1.0, low), middle, min(1.0, high)


def _with_noise(first: Sequence[float], second: Sequence[float], p: float, noise: float) -> tuple[Interval, float]:
    """(interval of the mean difference, p) over tasks and seeds: `p` is over the tasks alone, `noise` the standard
    deviation that seeds add to the difference.

    The interval's halves grow in quadrature. p is the larger of that over the tasks and of the normal deviate of the
    mean over both errors.
    """
    low, middle, high = paired_difference(first, second)
    if not noise:
        return (low, middle, high), p
    wide = middle - math.hypot(middle - low, _Z95 * noise), middle, middle + math.hypot(high - middle, _Z95 * noise)
    deviate = abs(middle) / math.hypot(_standard_error(first, second), noise)
    return wide, max(p, 2 * NormalDist().cdf(-deviate))
