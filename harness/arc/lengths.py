"""How long ARC prompts are, so that hours are for the sequences a run would really see."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_POINTS = 400


@dataclass(frozen=True)
class LengthDistribution:
    """Token counts of `count` sequences of one kind, which `name` says.

    `knots` are (tokens, share of the sequences of at most that many), rising from a share of 0 to one of 1; between
    two knots the distribution is straight. A count that several sequences have is two knots, one above the other.
    """

    name: str
    count: int
    knots: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, name: str, tokens: Sequence[int]) -> "LengthDistribution":
        """The distribution of the counts themselves."""
        knots, below = [], 0
        for length, times in sorted(Counter(tokens).items()):
            knots += [(length, below / len(tokens)), (length, (below + times) / len(tokens))]
            below += times
        return cls(name, len(tokens), tuple(knots))

    @property
    def mean(self) -> float:
        return sum((t0 + t1) / 2 * (s1 - s0) for (t0, s0), (t1, s1) in pairwise(self.knots))

    def coverage(self, context: int) -> float:
        """Share of the sequences of at most `context` tokens, 0 to 1."""
        i = bisect_right(self.knots, context, key=lambda knot: knot[0])
        if i in (0, len(self.knots)):
            return float(i > 0)
        (t0, s0), (t1, s1) = self.knots[i - 1 : i + 1]
        return s0 + (s1 - s0) * (context - t0) / (t1 - t0)

    def quantile(self, share: float) -> float:
        """The fewest tokens that `share` (0 to 1) of the sequences do not pass."""
        (t0, s0), (t1, s1) = next(piece for piece in pairwise(self.knots) if share <= piece[1][1])
        return t0 + (t1 - t0) * (share - s0) / (s1 - s0)

    def mean_over(self, seconds: Callable[[float], float], context: int) -> float | None:
        """The mean of `seconds(tokens)` over the sequences that fit `context`; None where none does.

        Longer ones are dropped, as a filter on length does. The distribution is summed over, not its mean length
        used: attention makes seconds grow faster than tokens.
        """
        share = self.coverage(context)
        if not share:
            return None
        return sum(seconds(self.quantile(share * (i + 0.5) / _POINTS)) for i in range(_POINTS)) / _POINTS


# Leave-one-out (n-1) sequences of the ARC-AGI-1 evaluation tasks, at one token per cell and one per newline, after a
# chat prompt of 292 tokens. Their mean by these knots is within 2 % of the published 1764. Another tokenizer gives
# other lengths.
PUBLISHED = LengthDistribution(
    "leave-one-out, published",
    1363,
    ((350, 0.0), (1024, 0.27), (1306, 0.50), (2048, 0.74), (3422, 0.90), (4096, 0.94), (4286, 0.95), (7836, 1.0)),
)
