"""How long ARC prompts are, so that hours are for the sequences a run would really see.

Leave-one-out (n-1) sequences of the ARC-AGI-1 evaluation tasks, at one token a cell and one a newline, after a chat
prompt of 292 tokens: 1363 sequences, mean 1764, longest 7836. Between the published shares the distribution is taken
as straight; the mean that this gives is within 2 % of the published one. Another tokenizer gives other lengths.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise

# (tokens, share of the sequences that are shorter)
_KNOTS = (
    (350, 0.0),
    (1024, 0.27),
    (1306, 0.50),
    (2048, 0.74),
    (3422, 0.90),
    (4096, 0.94),
    (4286, 0.95),
    (7836, 1.0),
)
_POINTS = 400


def coverage(context: int) -> float:
    """Share of the sequences that fit `context` tokens, 0 to 1."""
    if context <= _KNOTS[0][0]:
        return 0.0
    if context >= _KNOTS[-1][0]:
        return 1.0
    i = bisect_right([tokens for tokens, _ in _KNOTS], context)
    (t0, s0), (t1, s1) = _KNOTS[i - 1], _KNOTS[i]
    return s0 + (s1 - s0) * (context - t0) / (t1 - t0)


def quantile(share: float) -> float:
    """Tokens below which `share` (0 to 1) of the sequences lie."""
    for (t0, s0), (t1, s1) in pairwise(_KNOTS):
        if share <= s1:
            return t0 + (t1 - t0) * (share - s0) / (s1 - s0)
    return float(_KNOTS[-1][0])


def mean_over(seconds: Callable[[float], float], context: int) -> float | None:
    """The mean of `seconds(tokens)` over the sequences that fit `context`; None where none does.

    Longer ones are dropped, as a filter on length does. The distribution is summed over, not its mean length used:
    attention makes seconds grow faster than tokens.
    """
    share = coverage(context)
    if not share:
        return None
    return sum(seconds(quantile(share * (i + 0.5) / _POINTS)) for i in range(_POINTS)) / _POINTS
