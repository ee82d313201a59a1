import math
import random
from statistics import NormalDist, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import stats
from harness.analysis.stats import bootstrap_mean, holm, mcnemar, paired_difference, paired_p, wilson


def test_median_interval_by_hand():
    """n = 6: P(all six above the median) = 1/64 on either side, so [min, max] holds it with 96.9 %. n = 9: the second
    smallest and largest, for P(Binomial(9, 1/2) < 2) = 10/512 = 1.95 %, and < 3 would be 9 %."""
    assert stats.median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)
    assert stats.median_interval(range(1, 10)) == (2, 8)
    assert stats.median_interval([1, 2, 3, 4, 5]) is None


@pytest.mark.parametrize("n", [6, 15, 60, 250])
def test_median_interval_covers(n):
    """At least 95 % of 2000 lognormal samples hold the true median, 1, in their interval (less 1.5 % of chance)."""
    rng = random.Random(n)
    held = 0
    for _ in range(2000):
        low, high = stats.median_interval([rng.lognormvariate(0, 0.3) for _ in range(n)])
        held += low <= 1 <= high
    assert held / 2000 > 0.935


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=300))
def test_median_interval_lies_among_the_values(values):
    low, high = stats.median_interval(values)
    assert min(values) <= low <= sorted(values)[len(values) // 2] <= high <= max(values)


def test_t_points_against_tables():
    for degrees, point in ((1, 12.706), (10, 2.228), (15, 2.131), (30, 2.042), (120, 1.980)):
        assert stats.t95(degrees) == pytest.approx(point, abs=2e-3)
    assert stats.t95(1e9) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-6)


def test_mean_half_width_by_hand():
    """1, 2, 3: mean 2, standard deviation 1, t(2) = 4.303: 4.303 / sqrt(3) / 2 = 1.242."""
    assert stats.mean_half_width([1, 2, 3]) == pytest.approx(1.2422, abs=1e-3)
    assert stats.mean_half_width([1.0]) == math.inf


def test_correlated_samples_count_for_less():
    rng = random.Random(3)
    values, level = [], 0.0
    for _ in range(200):
        level = 0.9 * level + rng.gauss(0, 0.01)
        values.append(1 + level)
    shuffled = rng.sample(values, len(values))
    assert stats.lag1(values) > 0.6 > 0.2 > stats.lag1(shuffled)
    assert stats.mean_half_width(values) > 2 * stats.mean_half_width(shuffled)


def test_trend():
    rng = random.Random(5)
    steady = [1 + rng.gauss(0, 0.02) for _ in range(40)]
    heating = [v * (1 + 0.005 * i) for i, v in enumerate(steady)]
    assert stats.trend(steady) == 0.0
    assert stats.trend(heating) == pytest.approx(0.1, abs=0.03)
    assert stats.trend([1.0] * 1000) == 0.0
    assert stats.trend([1 + i / 1e4 for i in range(1000)]) > 0.04


def test_false_alarms_are_rare():
    """Of 300 samples of 30 from one normal heap, at most 3 % are called a trend, and as few two speeds."""
    rng = random.Random(7)
    drawn = [[rng.gauss(1, 0.05) for _ in range(30)] for _ in range(300)]
    assert sum(stats.trend(v) != 0 for v in drawn) <= 9
    assert sum(stats.two_speeds(v) is not None for v in drawn) <= 9


def test_two_speeds():
    rng = random.Random(9)
    values = [rng.gauss(1.0, 0.02) for _ in range(15)] + [rng.gauss(1.4, 0.02) for _ in range(15)]
    low, high = stats.two_speeds(values)
    assert low == pytest.approx(1.0, abs=0.03)
    assert high == pytest.approx(1.4, abs=0.03)
    assert stats.two_speeds([1.0] * 20) is None
    assert stats.two_speeds([1.0] * 19 + [2.0]) is None  # one outlier is no second speed
    assert fmean(values) == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(3, 20, 0.052, 0.360), (67, 400, 0.134, 0.207), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0)],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_wilson_covers():
    rng = random.Random(0)
    for p in (0.05, 0.2, 0.5):
        held = 0
        for _ in range(3000):
            low, high = wilson(sum(rng.random() < p for _ in range(40)), 40)
            held += low <= p <= high
        assert held / 3000 > 0.92


def test_wilson_refuses_what_is_no_count():
    for successes, trials in ((1, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="trials"):
            wilson(successes, trials)


def test_mcnemar_by_hand():
    """Five tasks solved by the second arm alone, none by the first: p = 2 / 2**5 = 0.0625; six: 0.03125."""
    assert mcnemar([False] * 5 + [True] * 9, [True] * 14) == pytest.approx(0.0625)
    assert mcnemar([False] * 6, [True] * 6) == pytest.approx(0.03125)
    assert mcnemar([True, False], [False, True]) == 1.0
    assert mcnemar([True], [True]) == 1.0
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True], [])


def test_bootstrap():
    values = [0.0] * 50 + [1.0] * 50
    low, high = bootstrap_mean(values)
    assert low == pytest.approx(0.4, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.03)
    # Arms that agree on most tasks differ by little: pairing is what sees it.
    low, mean, high = paired_difference(values, [0.0] * 44 + [1.0] * 56)
    assert mean == pytest.approx(0.06)
    assert 0 < low < mean < high < 0.13
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_paired_p_by_hand():
    """Differences 1, 2, 3: of the eight choices of signs two, all plus and all minus, reach |6|, so p is a quarter.
    Without a difference all do."""
    assert paired_p([0, 0, 0], [1, 2, 3]) == 0.25
    assert paired_p([1, 2], [1, 2]) == 1.0
    assert paired_p([], []) == 1.0
    # Thirty of one sign: 2 / 2**30, which no draw shows.
    assert paired_p([0.0] * 30, [0.1] * 30, draws=999) == 1 / 1000
    assert paired_p([3, 1, 4], [1, 5, 9]) == paired_p([1, 5, 9], [3, 1, 4])


@pytest.mark.parametrize("count", [7, 8, 11])
def test_drawn_signs_agree_with_all_of_them(count):
    """20,000 draws have a deviation of at most 0.0036; beside whole bytes of eight tasks too."""
    rng = random.Random(count)
    gains = [rng.gauss(0.2, 1) for _ in range(count)]
    exact = paired_p([0.0] * count, gains, draws=2**count)
    # Tasks without a difference change nothing, and make signs too many to try them all.
    drawn = paired_p([0.0] * (count + 20), gains + [0.0] * 20)
    assert drawn == pytest.approx(exact, abs=0.015) and 0 < exact < 1


def test_paired_p_is_below_five_percent_in_five_percent_of_nothing():
    """Of 400 pairs of samples without a difference 20 are expected, with a deviation of 4.4."""
    rng = random.Random(1)
    rejected = 0
    for _ in range(400):
        first = [rng.lognormvariate(0, 1) for _ in range(20)]
        rejected += paired_p(first, [value + rng.gauss(0, 1) for value in first], draws=199) < 0.05
    assert 5 <= rejected <= 36


def test_holm_by_hand():
    """0.01, 0.04, 0.03 of three: 3 x 0.01; 2 x 0.03; then 0.04, which may not be less than the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_is_between_p_and_bonferroni(values):
    adjusted = holm(values)
    assert all(p <= a <= min(1, len(values) * p) + 1e-12 for p, a in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)
