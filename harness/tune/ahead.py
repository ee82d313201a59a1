"""Training sequences drawn in a thread, ahead of the step that trains on them.

Augmenting, rendering and tokenising sixteen prompts takes tens of milliseconds, in which a card would be idle.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, Queue

from harness.arc.dataset import TrainingSequences

AHEAD = 64  # sequences


class Ahead:
    """The same sequences in the same order. `used` and `too_long` are the counts after the last one that was handed
    out, so that a run which stops goes on where training was, not where the thread is.

    Use it in a `with`, which ends the thread. What `sequences` raises is raised in its place.
    """

    def __init__(self, sequences: TrainingSequences, ahead: int = AHEAD):
        self.used, self.too_long = sequences.used, sequences.too_long
        self._sequences = sequences
        self._drawn: Queue[tuple[tuple[Sequence[int], int] | BaseException, int, int]] = Queue(ahead)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A thread that waits for room sees the end when there is some.
        while self._thread.is_alive():
            with suppress(Empty):
                self._drawn.get(timeout=0.01)

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> tuple[Sequence[int], int]:
        drawn, self.used, self.too_long = self._drawn.get()
        if isinstance(drawn, BaseException):
            self._drawn.put((drawn, self.used, self.too_long))  # for whoever asks again
            raise drawn
        return drawn

    def _draw(self) -> None:
        while not self._ended.is_set():
            drawn: tuple[Sequence[int], int] | BaseException
            try:
                drawn = next(self._sequences)
            except BaseException as problem:
                drawn = problem
            self._drawn.put((drawn, self._sequences.used, self._sequences.too_long))
            if isinstance(drawn, BaseException):
                return
