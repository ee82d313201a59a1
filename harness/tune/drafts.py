"""Drafts: how an answer may go on, guessed from its prompt and itself, so that one step confirms many tokens.

An ARC answer repeats rows of its prompt and of itself. So the next tokens are guessed to be those that followed at the
place that reads most like the end of the answer so far (prompt lookup; what is guessed is confirmed as in speculative
decoding, arXiv 2211.17192). A place counts 1 if the token before it is the last one, and _KEPT times the count of the
place before it; so one cell that differs does not end a copy.
"""

from collections.abc import Sequence

import numpy as np

from harness.catalog.accelerators import CPU
from harness.predict.answering import drafted_tokens

_KEPT = 0.9
# Right guesses per row and step from which on they are worth it. On a CPU a step of four tokens per row takes 1.5 times
# (bf16) to 2.4 times (fp32) as long as one of a single token; a card's waits for weights and launches, by assumption.
_LEAST_RIGHT = {CPU: 0.8}
_LEAST_RIGHT_ELSEWHERE = 0.2
_FIRST_RIGHT = 2.0  # is expected at first
_NEWEST = 0.3  # share of a step in the mean
_TRIAL_EVERY = 16  # steps, where guesses are not worth it
_LOOKED_BACK = 32  # tokens that places are counted by at first: of more, 0.9 ^ 32 = 3 % would be left


class Draft:
    """Guesses for the answer to `prompt`, of at most `limit` tokens."""

    def __init__(self, prompt: Sequence[int], limit: int):
        self.tokens = np.zeros(len(prompt) + limit, dtype=np.int64)
        self.tokens[: len(prompt)] = prompt
        self.length = len(prompt)
        self._count()

    def add(self, token: int) -> None:
        """The answer's next token."""
        self.tokens[self.length] = token
        self.length += 1
        self._follow(self.length)

    def rewind(self, tokens: int) -> None:
        """Takes the last `tokens` out of the answer."""
        if tokens:
            self.length -= tokens
            self._count()

    def next(self, most: int) -> list[int]:
        """At most `most` tokens that may come next: one at least, if any is allowed and there are two tokens."""
        if most < 1 or self.length < 2:
            return []
        # Of equal counts the last place: the nearest.
        place = self.length - 1 - int(self.counts[self.length - 1 : 0 : -1].argmax())
        return self.tokens[place : min(place + most, self.length)].tolist()

    def _count(self) -> None:
        self.counts = np.zeros(len(self.tokens) + 1, dtype=np.float32)  # of each place: the tokens before it
        for length in range(max(1, self.length - _LOOKED_BACK), self.length + 1):
            self._follow(length)

    def _follow(self, length: int) -> None:
        """Counts again for a text that has grown to `length` tokens."""
        before = self.tokens[: length - 1]
        self.counts[1:length] = _KEPT * self.counts[: length - 1] + (before == self.tokens[length - 1])


class Worth:
    """How many tokens to guess on a device of this kind: none, but for a trial now and then, where few have been right,
    as in prose. It goes by what was right and by no clock, so that the same answers take the same steps."""

    def __init__(self, kind: str):
        self.kind, self.right, self.without = kind, _FIRST_RIGHT, 0

    def most(self, rows: int) -> int:
        """Guesses per row in the next step of so many `rows`."""
        if self.right < _LEAST_RIGHT.get(self.kind, _LEAST_RIGHT_ELSEWHERE) and self.without < _TRIAL_EVERY:
            self.without += 1
            return 0
        self.without = 0
        return drafted_tokens(self.kind, rows)

    def saw(self, guessed: Sequence[int], kept: Sequence[int]) -> None:
        """Of each row's guesses in a step, their number, and the tokens that were kept, the one before them too."""
        if any(guessed):
            self.right += _NEWEST * (sum(kept) / len(kept) - 1 - self.right)
