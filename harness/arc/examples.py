"""Training examples for test-time fine-tuning: a task's own demonstrations, each in turn as the question.

No function here receives a test output: an `Example` is made of demonstrations alone.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from harness.arc.augment import View
from harness.arc.task import Grid, Pair, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A question with its answer: demonstrations to show, the input, and the output to learn."""

    id: str
    demonstrations: tuple[Pair, ...]
    test_input: Grid
    output: Grid

    @property
    def question(self) -> Pair:
        return Pair(self.test_input, self.output)

    @property
    def grids(self) -> list[Grid]:
        """All grids, the answer too."""
        return [grid for pair in (*self.demonstrations, self.question) for grid in (pair.input, pair.output)]

    def in_view(self, view: View) -> "Example":
        """The example in `view`."""
        shown = view.pairs(self.demonstrations)
        return Example(self.id, shown, view.apply(self.test_input), view.apply(self.output))


def leave_one_out(task: Task) -> list[Example]:
    """n-1: each demonstration in turn is the question and all others are shown. Empty for a single demonstration."""
    return [_example(task, i, (i,)) for i in range(len(task.demonstrations)) if len(task.demonstrations) > 1]


def leave_two_out(task: Task) -> list[Example]:
    """n-2: for every two demonstrations, one is the question and the other is hidden, both ways round."""
    n = len(task.demonstrations)
    return [
        _example(task, question, left_out)
        for left_out in combinations(range(n), 2)
        for question in left_out
        if n > 2  # at least one must be shown
    ]


def draw_question(task: Task, rng: random.Random) -> Example:
    """A random demonstration as the question, the others shown in random order; the task must have two or more."""
    order = rng.sample(range(len(task.demonstrations)), len(task.demonstrations))
    question, *shown = (task.demonstrations[i] for i in order)
    return Example(task.id, tuple(shown), question.input, question.output)


ON_THE_FLY = "on the fly"
# name -> the examples of one task. "n-2" is the union with n-1, as published. "on the fly" draws its examples with
# `draw_question`; here it has the pool that they are drawn from.
SETS = {
    ON_THE_FLY: leave_one_out,
    "n-1": leave_one_out,
    "n-2": lambda task: leave_one_out(task) + leave_two_out(task),
}


def questions(task: Task) -> list[tuple[tuple[Pair, ...], Grid]]:
    """The questions to answer: all demonstrations with each test input."""
    return [(task.demonstrations, grid) for grid in task.test_inputs]


def shuffled(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """Repeats the items without end, each pass in a new random order."""
    while items:
        yield from rng.sample(list(items), len(items))


def _example(task: Task, question: int, left_out: tuple[int, ...]) -> Example:
    shown = tuple(pair for i, pair in enumerate(task.demonstrations) if i not in left_out)
    return Example(task.id, shown, task.demonstrations[question].input, task.demonstrations[question].output)
