"""Honest intervals and comparisons for accuracies on few tasks."""

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean

_Z = NormalDist().inv_cdf(0.975)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); right also at 0, at 1 and for few trials.

    Raises ValueError without trials, or for successes outside of them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    p, n = successes / trials, trials
    middle = p + _Z**2 / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + _Z**2 / n), (middle + half) / (1 + _Z**2 / n)
    return (0.0 if successes == 0 else low, 1.0 if successes == trials else high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p that two arms solve the same tasks equally often (McNemar 1947, binomial form).

    Only tasks that one arm alone solves say anything. Raises ValueError for arms on different numbers of tasks.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(1.0, 2 * tail)


def bootstrap_mean(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, tasks drawn with replacement (Efron 1979). ValueError for none."""
    if not values:
        raise ValueError("no values")
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(draws))
    return means[int(0.025 * draws)], means[math.ceil(0.975 * draws) - 1]


def paired_difference(
    first: Sequence[float], second: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(low, mean, high) of second - first on the same tasks, by a paired bootstrap over tasks at 95 %."""
    gains = [b - a for a, b in zip(first, second, strict=True)]
    low, high = bootstrap_mean(gains, draws, seed)
    return low, fmean(gains), high
