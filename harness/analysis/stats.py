"""The statistics of timings: medians with intervals, and what is wrong with a sample."""

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist, fmean, median, pstdev, stdev

# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom (any table).
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def t95(degrees: float) -> float:
    """The 97.5 % point of Student's t; Cornish-Fisher to the second term above the table (Abramowitz 26.7.5)."""
    if degrees <= len(_T95):
        return _T95[max(1, math.floor(degrees)) - 1]
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median by order statistics, free of any distribution.

    The k-th smallest and k-th largest hold it with 1 - 2 P(Binomial(n, 1/2) < k). Below six values none does with
    95 %: None.
    """
    k = _order_rank(len(values))
    ordered = sorted(values)
    return (ordered[k - 1], ordered[-k]) if k else None


@lru_cache(maxsize=512)
def _order_rank(n: int) -> int:
    """The largest k with P(Binomial(n, 1/2) < k) <= 2.5 %; above 200 by its normal limit."""
    if n > 200:
        return math.floor(n / 2 - NormalDist().inv_cdf(0.975) * math.sqrt(n) / 2)
    below, k = 0.0, 0
    while (below := below + math.comb(n, k) / 2**n) <= 0.025:
        k += 1
    return k


def median_half_width(values: Sequence[float]) -> float | None:
    """Half the median's 95 % interval, relative to the median; None below six values."""
    interval = median_interval(values)
    return (interval[1] - interval[0]) / 2 / median(values) if interval else None


def lag1(values: Sequence[float]) -> float:
    """Lag-one autocorrelation, from 0 to 0.9; 0 below eight values, where it is not to be told from noise."""
    if len(values) < 8 or not (spread := pstdev(values)):
        return 0.0
    mean = fmean(values)
    products = [(a - mean) * (b - mean) for a, b in pairwise(values)]
    return min(0.9, max(0.0, fmean(products) / spread**2))


def mean_half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean, relative to it: Student's t on the effective number of samples.

    Neighbouring timings are alike, so n correlated ones count for n (1 - r) / (1 + r) (Bartlett 1935).
    Infinite for fewer than two values.
    """
    n = len(values)
    if n < 2:
        return math.inf
    r = lag1(values)
    effective = max(2.0, n * (1 - r) / (1 + r))
    return t95(effective - 1) * stdev(values) / math.sqrt(effective) / fmean(values)


def trend(values: Sequence[float]) -> float:
    """Relative change from the first half's median to the second's, or 0 where chance explains it.

    Chance is Kendall's tau against the order of taking, at 1 % (Mann 1945). Needs eight values.
    """
    n = len(values)
    if n < 8:
        return 0.0
    if n > 400:  # tau is quadratic in n; neighbours in time say the same
        width = n / 400
        values = [fmean(values[int(i * width) : int((i + 1) * width)]) for i in range(400)]
        n = 400
    # Pairs that rise less pairs that fall.
    concordance = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    # Its standard deviation where the order of taking does not matter.
    z = concordance / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    if abs(z) < 2.576:
        return 0.0
    half = n // 2
    return median(values[-half:]) / median(values[:half]) - 1


def two_speeds(values: Sequence[float]) -> tuple[float, float] | None:
    """The two levels of a bimodal sample, or None.

    Otsu's split: both groups hold a fifth at least, lie 5 % apart, and explain 85 % of the variance. A single normal
    heap split in its middle explains 64 %.
    """
    n = len(values)
    if n < 10 or not (total := pstdev(values)):
        return None
    ordered = sorted(values)
    # Every cut that leaves a fifth on either side; the one that explains most variance.
    best, cut = 0.0, 0
    for i in range(max(1, n // 5), n - max(1, n // 5) + 1):
        a, b = ordered[:i], ordered[i:]
        between = i * (n - i) / n**2 * (fmean(b) - fmean(a)) ** 2 / total**2
        if between > best:
            best, cut = between, i
    low, high = (fmean(ordered[:cut]), fmean(ordered[cut:])) if cut else (0.0, 0.0)
    return (low, high) if best > 0.85 and high > 1.05 * low else None


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
    """(low, mean, high) of second - first on the same tasks, by a paired bootstrap over tasks at 95 %. ValueError for
    none."""
    import numpy as np

    gains = np.array([b - a for a, b in zip(first, second, strict=True)])
    n = len(gains)
    if not n:
        raise ValueError("no values")
    # Drawn tasks are looked up: some ten times as fast as drawing how often each one comes.
    means = gains[np.random.default_rng(seed).integers(0, n, (draws, n))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(gains.mean()), float(high)


def paired_p(first: Sequence[float], second: Sequence[float], draws: int = 20000, seed: int = 0) -> float:
    """Two-sided p that the differences on the same tasks have mean zero, by flipping their signs at random.

    A permutation test (Fisher 1935): without a difference each sign is as likely as the other. All signs are tried
    where there are no more than `draws`. Else the observed ones are one of the draws, so p is at least 1 / (draws + 1)
    (Phipson and Smyth 2010).
    """
    import numpy as np

    gains = np.array([b - a for a, b in zip(first, second, strict=True)])
    # Rounding must not make equal sums different.
    least, n = abs(gains.sum()) * (1 - 1e-9), len(gains)
    if 2**n <= draws:
        every = 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(every @ gains) >= least).mean())
    eights = np.append(gains, np.zeros(-len(gains) % 8)).reshape(-1, 8)
    # A random byte is the signs of eight tasks: all 256 signed sums of them are known, and are looked up.
    signed = eights @ (1.0 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)).T
    signs, sums = np.random.default_rng(seed).integers(0, 256, (len(eights), draws), dtype=np.uint8), np.zeros(draws)
    for known, drawn in zip(signed, signs, strict=True):
        sums += known[drawn]
    return (1 + int((np.abs(sums) >= least).sum())) / (draws + 1)


def holm(values: Sequence[float]) -> list[float]:
    """p adjusted for their number, in their order: below 5 % they hold together at 5 % (Holm 1979)."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = least
    return adjusted
