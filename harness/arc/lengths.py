"""The lengths of ARC prompts, so that predicted hours are of the sequences that a run would really see."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random

_POINTS = 400
# Mean tokens of a test question of the ARC-AGI-1 evaluation set and of its answer, encoded as PUBLISHED below.
QUESTION_TOKENS, ANSWER_TOKENS = 2316, 248


@dataclass(frozen=True)
class LengthDistribution:
    """The distribution of token counts over `count` sequences of the kind `name`.

    `knots` are points (tokens, share of sequences with at most so many) of the cumulative distribution, from share 0
    to 1, linear between knots. A jump is two knots with the same tokens.
    """

    name: str
    count: int
    knots: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, name: str, tokens: Sequence[int]) -> "LengthDistribution":
        """The exact distribution of these counts: one jump per distinct length."""
        knots, below = [], 0
        for length, times in sorted(Counter(tokens).items()):
            knots += [(length, below / len(tokens)), (length, (below + times) / len(tokens))]
            below += times
        return cls(name, len(tokens), tuple(knots))

    @property
    def mean(self) -> float:
        # Between two knots lengths are uniform.
        return sum((t0 + t1) / 2 * (s1 - s0) for (t0, s0), (t1, s1) in pairwise(self.knots))

    def coverage(self, context: int) -> float:
        """Share of the sequences with at most `context` tokens, 0 to 1."""
        i = bisect_right(self.knots, context, key=lambda knot: knot[0])
        if i in (0, len(self.knots)):
            return float(i > 0)
        (t0, s0), (t1, s1) = self.knots[i - 1 : i + 1]
        return s0 + (s1 - s0) * (context - t0) / (t1 - t0)

    def quantile(self, share: float) -> float:
        """The smallest length that `share` (0 to 1) of the sequences do not exceed, in tokens."""
        (t0, s0), (t1, s1) = next(piece for piece in pairwise(self.knots) if share <= piece[1][1])
        return t0 + (t1 - t0) * (share - s0) / (s1 - s0)

    def mean_over(self, seconds: Callable[[float], float], context: int) -> float | None:
        """The mean of `seconds(tokens)` over the sequences that fit `context`; None where none does.

        Longer sequences are left out, as training leaves them out. The mean is over the distribution, not at the mean
        length, because attention makes seconds grow faster than tokens.
        """
        share = self.coverage(context)
        if not share:
            return None
        return sum(map(seconds, _midpoints(self, share))) / _POINTS

    def draw(self, context: int, count: int, rng: Random) -> list[int]:
        """`count` lengths of sequences that fit `context`, in random order; none where none fits.

        One of each of `count` equal parts of the distribution, so that few of them have its mean.
        """
        share = self.coverage(context)
        lengths = [round(self.quantile(share * (i + rng.random()) / count)) for i in range(count)] if share else []
        rng.shuffle(lengths)
        return lengths

    def moments(self, context: int) -> tuple[float, float] | None:
        """Means of tokens and of squared tokens over the sequences that fit `context`; None where none does."""
        return _moments(self, context)


@lru_cache(maxsize=1 << 12)
def _midpoints(lengths: LengthDistribution, share: float) -> tuple[float, ...]:
    """Lengths in the middle of equal parts of the first `share` of the sequences."""
    # One walk over the pieces: the shares ascend.
    points, pieces = [], pairwise(lengths.knots)
    (t0, s0), (t1, s1) = next(pieces)
    for i in range(_POINTS):
        wanted = share * (i + 0.5) / _POINTS
        while wanted > s1:
            (t0, s0), (t1, s1) = next(pieces)
        points.append(t0 + (t1 - t0) * (wanted - s0) / (s1 - s0))
    return tuple(points)


@lru_cache(maxsize=1 << 14)
def _moments(lengths: LengthDistribution, context: int) -> tuple[float, float] | None:
    share = lengths.coverage(context)
    if not share:
        return None
    points = _midpoints(lengths, share)
    return sum(points) / _POINTS, sum(n * n for n in points) / _POINTS


# Leave-one-out (n-1) sequences of the ARC-AGI-1 evaluation tasks, at one token per cell and one per newline, after a
# chat prompt of 292 tokens. The mean of these knots is within 2 % of the published 1764. Another tokenizer has other
# lengths.
PUBLISHED = LengthDistribution(
    "leave-one-out, published",
    1363,
    ((350, 0.0), (1024, 0.27), (1306, 0.50), (2048, 0.74), (3422, 0.90), (4096, 0.94), (4286, 0.95), (7836, 1.0)),
)
