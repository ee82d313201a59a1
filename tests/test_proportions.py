import random

import pytest

from harness.analysis.stats import bootstrap_mean, mcnemar, paired_difference, wilson


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
