import math
import random

import pytest

from harness.analysis.learning_curve import accuracy_after, chance_of_best
from harness.records.arm import CurvePoint

STEPS = (4, 8, 16, 32, 64, 125)


def _curve(rng, tasks=60, end=1000):
    """A learning curve with a known end: log-linear or saturating, each task solved from its own difficulty on, and one
    answer in twenty flipped by chance. Returns the checkpoints and the realised accuracy at the end."""
    start, gain = rng.uniform(0.0, 0.25), rng.uniform(0.0, 0.35)
    if rng.random() < 0.5:

        def p(s):
            return start + gain * math.log2(s) / math.log2(1000)
    else:
        power = rng.uniform(0.2, 1.2)

        def p(s):
            return start + gain * (1 - s**-power) / (1 - 1000**-power)

    hard = [rng.random() for _ in range(tasks)]

    def solved(s):
        return tuple(float((h < p(s)) != (rng.random() < 0.05 * p(s))) for h in hard)

    return [CurvePoint(s, 2.0 - 0.1 * i, solved(s)) for i, s in enumerate(STEPS)], sum(solved(end)) / tasks


def test_the_interval_covers_the_known_end_of_simulated_curves():
    """Of 200 curves at least 90 % end inside the 95 % interval, eight times beyond the last checkpoint."""
    rng, held, widths = random.Random(0), 0, []
    for number in range(200):
        seen, end = _curve(rng)
        estimate = accuracy_after(seen, 1000, seed=number)
        assert estimate.reach == 8.0
        held += estimate.low - 1e-9 <= end <= estimate.high + 1e-9
        widths.append(estimate.high - estimate.low)
    assert held >= 180
    assert sorted(widths)[100] < 0.5  # and says something


def test_a_curve_by_hand():
    """Log-linear without noise, 10 % more with every doubling from 10 % at 4: 60 % at 128."""
    seen = [CurvePoint(4 * 2**i, 1.0, (1.0,) * (10 + 10 * i) + (0.0,) * (90 - 10 * i)) for i in range(5)]
    estimate = accuracy_after(seen, 128)
    assert estimate.low < 0.6 < estimate.high
    assert estimate.mid == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize(
    ("seen", "steps", "why"),
    [
        ([(1, 2.0), (2, 1.9), (4, 1.8)], 8, "3 checkpoints"),
        ([(0, 2.0), (1, 2.0), (2, 1.9), (4, 1.8)], 8, "3 checkpoints"),
        ([], 8, "0 checkpoints"),
        ([(1, 2.0), (2, 1.9), (4, 1.8), (8, 1.7)], 65, "x8.1 beyond"),
        ([(1, 2.0), (2, 1.5), (4, 1.4), (8, 1.6)], 16, "loss is rising"),
        ([(1, None), (2, None), (4, None), (8, None)], 16, "no answer fits"),
    ],
)
def test_it_is_refused_where_the_checkpoints_do_not_carry(seen, steps, why):
    estimate = accuracy_after([CurvePoint(s, loss, (0.0, 1.0)) for s, loss in seen], steps)
    assert math.isnan(estimate.mid)
    assert why in estimate.refused


def test_the_interval_grows_with_the_reach_and_shrinks_with_tasks():
    rng = random.Random(3)
    few, _ = _curve(rng, tasks=20)
    rng = random.Random(3)
    many, _ = _curve(rng, tasks=600)

    def width(seen, steps):
        estimate = accuracy_after(seen, steps)
        return estimate.high - estimate.low

    assert width(many, 1000) < width(few, 1000)
    assert width(many, 150) < width(many, 1000)


def test_chance_of_best():
    good, bad = [1.0] * 30 + [0.0] * 20, [1.0] * 10 + [0.0] * 40
    chances = chance_of_best({"good": good, "bad": bad, "same": list(good)})
    assert chances["bad"] < 0.001
    assert chances["good"] == pytest.approx(0.5, abs=0.01)
    assert sum(chances.values()) == pytest.approx(1.0)
    close = chance_of_best({"a": [1.0, 0.0] * 25, "b": [0.0, 1.0] * 24 + [1.0, 1.0]})
    assert 0.4 < close["b"] < 0.7
    with pytest.raises(ValueError, match="same tasks"):
        chance_of_best({"a": [1.0], "b": []})
