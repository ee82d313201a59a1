"""Drafts: how an answer may go on, guessed from its prompt and itself, so that one step confirms many tokens.

An ARC answer repeats rows of its prompt and of itself. So the next tokens are guessed to be those that followed at the
place that reads most like the end of the answer so far (prompt lookup; what is guessed is confirmed as in speculative
decoding, arXiv 2211.17192). A place counts 1 if the token before it is the last one, and _KEPT times the count of the
place before it; so one cell that differs does not end a copy.
"""

from collections.abc import Sequence

import numpy as np

_KEPT = 0.9
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
