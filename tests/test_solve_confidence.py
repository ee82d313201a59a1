"""How many answers are right, from shares that are no probabilities: simulated, with the truth at hand."""

import math
import random
from dataclasses import replace

import pytest
from helpers.records import result
from helpers.solving import row_of

from harness.solve.confidence import _fitted, both_shares, expected, known_of, known_of_arm


def _drawn(rng, count, a, b):
    """Shares, and answers that are right with logistic(a + b logit(share))."""
    shares = [rng.betavariate(1.5, 1.0) for _ in range(count)]
    logits = [math.log(s / (1 - s)) if 0 < s < 1 else 9.0 for s in shares]
    return [(s, rng.random() < 1 / (1 + math.exp(-a - b * z))) for s, z in zip(shares, logits, strict=True)]


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-2.0, 0.6), (1.0, 1.5)])
@pytest.mark.parametrize("count", [12, 200])
def test_the_interval_holds_the_number_that_is_right(a, b, count):
    """Of 200 simulated runs of 100 tasks about 190 are inside; shares taken as probabilities would be far off."""
    rng, inside, off = random.Random(0), 0, []
    for _ in range(200):
        run = _drawn(rng, 100, a, b)
        seen = expected({str(i): [s] for i, (s, _) in enumerate(run)}, {str(i): 1 for i in range(100)},
                        _drawn(rng, count, a, b))  # fmt: skip
        right = sum(truth for _, truth in run)
        inside += seen.low <= right <= seen.high
        off.append(seen.mid - right)
        assert seen.known == count and seen.tasks == 100
    assert inside >= 180
    assert abs(sum(off) / len(off)) < (8 if count == 12 else 2)


def test_few_answers_stay_near_the_identity_and_many_are_followed():
    a, b, _ = _fitted([])
    assert (a, b) == (0.0, 1.0)
    assert _fitted([(0.9, False)] * 2)[0] > _fitted([(0.9, False)] * 200)[0]
    a, b, cov = _fitted(_drawn(random.Random(1), 4000, -1.0, 0.5))
    assert a == pytest.approx(-1.0, abs=0.15) and b == pytest.approx(0.5, abs=0.1)
    assert cov[0][0] < 0.01 and cov[1][1] < 0.01


def test_a_task_counts_by_its_test_inputs_and_none_without_an_answer():
    known = [(0.5, True), (0.5, False)] * 500  # half of such answers are right
    one = expected({"a": [0.5]}, {"a": 1}, known)
    two = expected({"a": [0.5, 0.0]}, {"a": 2, "b": 1}, known)
    assert one.mid == pytest.approx(0.5, abs=0.01) and two.mid == pytest.approx(0.25, abs=0.01)
    assert 0 <= two.low < two.mid < two.high <= 2 and two.tasks == 2


def test_what_is_known_comes_from_first_tries_and_from_arms():
    row = row_of(right=(True,))
    assert both_shares([row]) == [1.0]
    assert known_of([row, row_of("t1"), row_of(attempt=2, right=(False,))]) == [(1.0, True)]
    arm = replace(result(2), confidence={score.id: ((0.5, 0.25),) for score in result(2).scores})
    pairs = known_of_arm(arm)
    assert len(pairs) == len(arm.scores) and sum(right for _, right in pairs) == 2
    assert {share for share, _ in pairs} == {0.75}
