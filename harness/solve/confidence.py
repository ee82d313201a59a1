"""From the shares that answers have to the number that is right: a map fitted on answers that are known right or wrong.

A share of the views is no probability. The chance that one of two attempts is right is taken as
logistic(a + b logit(share of both)), by Platt's two parameters, with a prior about the identity (a = 0, b = 1) that few
answers do not outweigh. The interval has both the draw of each answer and what is not known of a and b (Laplace).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.records.arm import ATTEMPTS, ArmResult
from harness.records.solving import SolvedTask, joined

LEAST = 10  # known answers: with fewer nothing is said
_SIGMAS = 2.0, 1.0  # of the prior of a and b
_EDGE = 0.01  # shares of 0 and 1 are taken for this far from it

Known = tuple[float, bool]  # the share of both attempts, and whether one of them was right


@dataclass(frozen=True)
class Expected:
    """Of `tasks` tasks so many are expected right, with a 95 % interval, by `known` answers."""

    tasks: int
    mid: float
    low: float
    high: float
    known: int


def both_shares(rows: Iterable[SolvedTask]) -> list[float]:
    """Per test input of one task, the share of its two attempts together."""
    return [min(1.0, sum(share for _, share in own[:ATTEMPTS])) for own in joined(rows)]


def known_of(rows: Iterable[SolvedTask]) -> list[Known]:
    """The first tries among `rows` whose solutions were at hand."""
    first = [row for row in rows if row.right and row.attempt == 1]
    return [pair for row in first for pair in zip(both_shares([row]), row.right, strict=False)]


def known_of_arm(result: ArmResult) -> list[Known]:
    """Of an arm's tasks that are right or wrong in all their test inputs; the others do not say which was right."""
    return [
        (min(1.0, sum(shares)), score.solved)
        for score in result.scores
        if score.attempts in (0.0, 1.0)
        for shares in result.confidence.get(score.id, ())
    ]


def expected(shares: Mapping[str, Sequence[float]], inputs: Mapping[str, int], known: Sequence[Known]) -> Expected:
    """Of the tasks in `inputs`, by their test inputs; `shares` are of both attempts at each. A task counts by the share
    of its test inputs that are right; one without an answer is wrong."""
    a, b, cov = _fitted(known)
    mid = drawn = 0.0
    slope = [0.0, 0.0]
    for task, count in inputs.items():
        for share in (share for share in shares.get(task, ()) if share > 0):
            z = _logit(share)
            p = _logistic(a + b * z)
            mid += p / count
            drawn += p * (1 - p) / count**2
            slope = [s + p * (1 - p) * x / count for s, x in zip(slope, (1.0, z), strict=True)]
    unsure = sum(slope[i] * cov[i][j] * slope[j] for i in (0, 1) for j in (0, 1))
    spread = 1.96 * math.sqrt(drawn + unsure)
    return Expected(len(inputs), mid, max(0.0, mid - spread), min(float(len(inputs)), mid + spread), len(known))


def _fitted(known: Sequence[Known]) -> tuple[float, float, list[list[float]]]:
    """The most likely a and b, and their covariance, by Newton's steps of at most 1."""
    a, b = 0.0, 1.0
    for _ in range(100):
        precision = [[_SIGMAS[0] ** -2, 0.0], [0.0, _SIGMAS[1] ** -2]]
        rise = [-a * precision[0][0], (1.0 - b) * precision[1][1]]
        for share, right in known:
            x = (1.0, _logit(share))
            p = _logistic(a + b * x[1])
            for i in (0, 1):
                rise[i] += (right - p) * x[i]
                for j in (0, 1):
                    precision[i][j] += p * (1 - p) * x[i] * x[j]
        (q, r), (_, s) = precision
        det = q * s - r * r
        cov = [[s / det, -r / det], [-r / det, q / det]]
        step = [cov[i][0] * rise[0] + cov[i][1] * rise[1] for i in (0, 1)]
        shorter = min(1.0, 1.0 / max(1e-12, math.hypot(*step)))
        a, b = a + shorter * step[0], b + shorter * step[1]
        if math.hypot(*step) < 1e-9:
            break
    return a, b, cov


def _logit(share: float) -> float:
    share = min(1 - _EDGE, max(_EDGE, share))
    return math.log(share / (1 - share))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
