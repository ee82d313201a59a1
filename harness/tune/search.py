"""What to try next in one question: depth first above a probability, or by drawing. Grids only."""

import math
from dataclasses import dataclass

import torch

from harness.arc.grammar import Written
from harness.tune.grid_tokens import GridTokens


@dataclass(frozen=True)
class Move:
    """Take the last `back` tokens of the answer away, then append `token`."""

    back: int
    token: int


@dataclass(frozen=True)
class _Branch:
    tokens: int  # of the answer before this one
    token: int
    log_prob: float  # of the answer with it
    state: Written


class DepthFirst:
    """All answers of at most `limit` tokens (the end is one) whose probability is `threshold` or more.

    Probabilities are those among the tokens that a grid allows. There are at most 1 / `threshold` answers, and as many
    branches at any length. Where there is none, `found` has the one that takes the most likely token every time.
    """

    def __init__(self, tokens: GridTokens, limit: int, threshold: float):
        self.tokens, self.limit, self.least = tokens, limit, math.log(threshold)
        self.found: list[tuple[float, tuple[int, ...]]] = []  # (log-probability, tokens without the end)
        self.path: list[int] = []
        self.state, self.log_prob = Written(), 0.0
        self.branches: list[_Branch] = []
        self.first: _Branch | None = None  # the most likely first token, for when nothing is above the threshold
        self.greedy = False

    def next(self, logits: torch.Tensor) -> Move | None:
        """The next move, by the `logits` [vocabulary] after the answer so far; None when all is found."""
        options, depth = self.tokens.options(self.state), len(self.path)
        *shares, end = options.log_probs(logits).tolist()
        if self.greedy and end >= max(shares, default=-math.inf):
            self.found.append((self.log_prob + end, tuple(self.path)))
            return None
        if not self.greedy and self.log_prob + end >= self.least:
            self.found.append((self.log_prob + end, tuple(self.path)))
        # The end needs a token too.
        following = [
            _Branch(depth, token, self.log_prob + share, state)
            for token, share, state in zip(options.ids.tolist(), shares, options.states, strict=False)
            if depth + 2 <= self.limit
        ]
        following.sort(key=lambda branch: branch.log_prob)
        if self.greedy:
            return self._take(following[-1]) if following else None
        if not depth and following:
            self.first = following[-1]
        self.branches += [branch for branch in following if branch.log_prob >= self.least]
        if self.branches:
            return self._take(self.branches.pop())
        if self.found or self.first is None:
            return None
        self.greedy = True
        return self._take(self.first)

    def _take(self, branch: _Branch) -> Move:
        back = len(self.path) - branch.tokens
        self.path[branch.tokens :] = [branch.token]
        self.state, self.log_prob = branch.state, branch.log_prob
        return Move(back, branch.token)


class Drawn:
    """One answer of at most `limit` tokens, every token drawn at `temperature` by `seed` among those a grid allows."""

    def __init__(self, tokens: GridTokens, limit: int, temperature: float, seed: int):
        self.tokens, self.limit, self.temperature = tokens, limit, temperature
        self.generator = torch.Generator().manual_seed(seed)
        self.found: list[tuple[float, tuple[int, ...]]] = []
        self.path: list[int] = []
        self.state, self.log_prob = Written(), 0.0

    def next(self, logits: torch.Tensor) -> Move | None:
        """As DepthFirst.next, without a step back."""
        options = self.tokens.options(self.state)
        log_probs = options.log_probs(logits)
        shares = (log_probs / self.temperature).softmax(-1)
        choice = int(torch.multinomial(shares, 1, generator=self.generator))
        self.log_prob += log_probs[choice].item()
        if choice == len(options.states):
            self.found.append((self.log_prob, tuple(self.path)))
            return None
        if len(self.path) + 2 > self.limit:
            return None
        self.path.append(int(options.ids[choice]))
        self.state = options.states[choice]
        return Move(0, self.path[-1])
