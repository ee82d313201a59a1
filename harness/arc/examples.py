"""What test-time fine-tuning trains on: a task's own demonstrations, each once in the role of the test.

Nothing here is given a test output: an `Example` is made of demonstrations alone.
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
    """A question with its answer: the demonstrations shown, the test input, and the output to learn."""

    id: str
    demonstrations: tuple[Pair, ...]
    test_input: Grid
    output: Grid

    def seen(self, view: View) -> "Example":
        """The example in `view`; an order of as many demonstrations as the example shows is applied too."""
        shown = tuple(Pair(view.apply(pair.input), view.apply(pair.output)) for pair in self.demonstrations)
        if view.order is not None and len(view.order) == len(shown):
            shown = tuple(shown[i] for i in view.order)
        return Example(self.id, shown, view.apply(self.test_input), view.apply(self.output))


def leave_one_out(task: Task) -> list[Example]:
    """n-1: each demonstration in turn is the question, all others are shown. None for a task of one demonstration."""
    return [_example(task, i, (i,)) for i in range(len(task.demonstrations)) if len(task.demonstrations) > 1]


def leave_two_out(task: Task) -> list[Example]:
    """n-2: of each two demonstrations either one is the question, and the other is not shown."""
    n = len(task.demonstrations)
    return [
        _example(task, question, left_out)
        for left_out in combinations(range(n), 2)
        for question in left_out
        if n > 2  # at least one must be shown
    ]


def draw_question(task: Task, rng: random.Random) -> Example:
    """One of the task's demonstrations, two at least, as the question; the others are shown in a random order."""
    order = rng.sample(range(len(task.demonstrations)), len(task.demonstrations))
    question, *shown = (task.demonstrations[i] for i in order)
    return Example(task.id, tuple(shown), question.input, question.output)


ON_THE_FLY = "on the fly"
# name -> the examples of one task; "n-2" is the union, as published; "on the fly" draws them anew (see `draw_question`)
SETS = {
    ON_THE_FLY: leave_one_out,
    "n-1": leave_one_out,
    "n-2": lambda task: leave_one_out(task) + leave_two_out(task),
}


def questions(task: Task) -> list[tuple[tuple[Pair, ...], Grid]]:
    """What is to be predicted: for each test input, all demonstrations and the input."""
    return [(task.demonstrations, grid) for grid in task.test_inputs]


def shuffled(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """The items without end, each once before any comes again, in a new order every time."""
    while items:
        yield from rng.sample(list(items), len(items))


def _example(task: Task, question: int, left_out: tuple[int, ...]) -> Example:
    shown = tuple(pair for i, pair in enumerate(task.demonstrations) if i not in left_out)
    return Example(task.id, shown, task.demonstrations[question].input, task.demonstrations[question].output)
