"""What test-time fine-tuning trains on: a puzzle's own demonstrations, each once in the role of the test.

Nothing here is given a test output: an `Example` is made of demonstrations alone.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.arc.augment import View
from harness.arc.task import Grid, Pair, Task


@dataclass(frozen=True)
class Example:
    """A question with its answer: the demonstrations shown, the input asked about, and the output to learn."""

    id: str
    pairs: tuple[Pair, ...]
    input: Grid
    output: Grid

    def seen(self, view: View) -> "Example":
        """The example in `view`; an order of as many demonstrations as the example shows is applied too."""
        pairs = tuple(Pair(view.apply(pair.input), view.apply(pair.output)) for pair in self.pairs)
        if view.order is not None and len(view.order) == len(pairs):
            pairs = tuple(pairs[i] for i in view.order)
        return Example(self.id, pairs, view.apply(self.input), view.apply(self.output))


def leave_one_out(puzzle: Task) -> list[Example]:
    """n-1: each demonstration in turn is the question, all others are shown. None for a puzzle of one demonstration."""
    return [_example(puzzle, i, (i,)) for i in range(len(puzzle.pairs)) if len(puzzle.pairs) > 1]


def leave_two_out(puzzle: Task) -> list[Example]:
    """n-2: of each two demonstrations either one is the question, and the other is not shown."""
    n = len(puzzle.pairs)
    return [
        _example(puzzle, asked, left_out)
        for left_out in combinations(range(n), 2)
        for asked in left_out
        if n > 2  # at least one must be shown
    ]


def drawn(puzzle: Task, rng: random.Random) -> Example | None:
    """The question drawn on the fly, of all demonstrations; the others are shown in a random order."""
    if len(puzzle.pairs) < 2:
        return None
    order = rng.sample(range(len(puzzle.pairs)), len(puzzle.pairs))
    asked, *shown = (puzzle.pairs[i] for i in order)
    return Example(puzzle.id, tuple(shown), asked.input, asked.output)


ON_THE_FLY = "on the fly"
# name -> the examples of one puzzle; "n-2" is the union, as published; "on the fly" draws them anew (see `drawn`)
SETS = {
    ON_THE_FLY: leave_one_out,
    "n-1": leave_one_out,
    "n-2": lambda puzzle: leave_one_out(puzzle) + leave_two_out(puzzle),
}


def questions(puzzle: Task) -> list[tuple[tuple[Pair, ...], Grid]]:
    """What is to be predicted: for each test input, all demonstrations and the input."""
    return [(puzzle.pairs, grid) for grid in puzzle.test_inputs]


def shuffled(examples: Sequence[Example], rng: random.Random) -> Iterator[Example]:
    """The examples without end, each once before any comes again, in a new order every time."""
    while examples:
        yield from rng.sample(list(examples), len(examples))


def _example(puzzle: Task, asked: int, left_out: tuple[int, ...]) -> Example:
    shown = tuple(pair for i, pair in enumerate(puzzle.pairs) if i not in left_out)
    return Example(puzzle.id, shown, puzzle.pairs[asked].input, puzzle.pairs[asked].output)
