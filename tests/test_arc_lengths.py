"""A distribution of lengths, of counts and of published shares alike."""

import random

import pytest

from harness.arc.lengths import PUBLISHED, LengthDistribution


def test_a_set_of_counts_by_hand():
    counts = LengthDistribution.of("made", [30, 10, 20, 10])
    assert (counts.count, counts.mean) == (4, 17.5)
    assert [counts.coverage(n) for n in (9, 10, 19, 20, 29, 30, 99)] == [0, 0.5, 0.5, 0.75, 0.75, 1, 1]
    assert [counts.quantile(share) for share in (0.0, 0.5, 0.51, 0.75, 0.9, 1.0)] == [10, 10, 20, 20, 30, 30]
    assert counts.mean_over(lambda n: n**2, 20) == pytest.approx((100 + 100 + 400) / 3, rel=0.01)
    assert counts.mean_over(lambda n: n, 9) is None


def test_all_of_one_length():
    counts = LengthDistribution.of("made", [7, 7])
    assert (counts.mean, counts.coverage(6), counts.coverage(7), counts.quantile(0.5)) == (7, 0, 1, 7)


def test_published_shares_and_mean():
    assert [PUBLISHED.coverage(n) for n in (350, 1024, 2048, 4096, 7836, 9000)] == [0, 0.27, 0.74, 0.94, 1, 1]
    assert PUBLISHED.mean == pytest.approx(1764, rel=0.02)
    assert PUBLISHED.mean_over(lambda n: n, 8192) == pytest.approx(PUBLISHED.mean)
    assert PUBLISHED.mean_over(lambda n: n, 256) is None
    assert 350 < PUBLISHED.mean_over(lambda n: n, 1024) < 1024
    for share in (0.1, 0.27, 0.5, 0.93, 1.0):
        assert PUBLISHED.coverage(PUBLISHED.quantile(share)) == pytest.approx(share)


def test_drawn_lengths_have_the_distribution_of_those_that_fit():
    rng = random.Random(0)
    drawn = [PUBLISHED.draw(2048, 16, rng) for _ in range(200)]
    assert all(len(step) == 16 and min(step) >= 350 and max(step) <= 2048 for step in drawn)
    mean, _ = PUBLISHED.moments(2048)
    # One of each sixteenth: every step has about the mean, though single lengths differ by a factor of six.
    assert all(abs(sum(step) / 16 / mean - 1) < 0.07 for step in drawn)
    assert sum(map(sum, drawn)) / 3200 == pytest.approx(mean, rel=0.01)
    assert drawn[0] != sorted(drawn[0])
    assert PUBLISHED.draw(100, 16, rng) == []
