"""Further augmentations of training examples, drawn from a weighted set: resized, combined, sides swapped.

A resized question can be asked too, for its answer has an exact inverse (harness.arc.augment.View). The others are for
training only: a combined answer is of two tasks, and several inputs may have one output.
No grid gets more than 30 cells a side: only changes that fit are drawn, and where none does the example stays as it is.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial

from harness.arc.augment import View
from harness.arc.examples import Example
from harness.arc.resize import RESIZES, fits
from harness.arc.task import Grid, Pair

Mixture = tuple[tuple[str, float], ...]  # names in CHANGES with their weights, which need not add up to 1
_PARTNERS = 8  # other examples that are tried for one that fits beside the first


def resized(kind: str, example: Example, pool: Sequence[Example], rng: random.Random) -> Example:
    """All grids resized alike, in one of the ways of `kind` that fit."""
    made = [example.in_view(View(resize=resize)) for resize in RESIZES[kind]]
    fitting = [change for change in made if fits(change.grids)]
    return rng.choice(fitting) if fitting else example


def beside(first: Grid, second: Grid) -> Grid:
    """`second` to the right of `first`, the lower one filled up with background."""
    height = max(len(first), len(second))
    left, right = (grid + ((0,) * len(grid[0]),) * (height - len(grid)) for grid in (first, second))
    return tuple(a + b for a, b in zip(left, right, strict=True))


def pair_beside(first: Pair, second: Pair) -> Pair:
    return Pair(beside(first.input, second.input), beside(first.output, second.output))


def combined(example: Example, pool: Sequence[Example], rng: random.Random) -> Example:
    """Every input with one of another task after it, and their outputs likewise; as many pairs as both tasks show.

    The other is drawn from `pool`. Where there is no other task it is this one, its demonstrations in another order.
    """
    others = [other for other in pool if other.id != example.id]
    shown = example.demonstrations
    alone = Example(example.id, shown[1:] + shown[:1], example.test_input, example.output)
    partners = rng.sample(others, min(_PARTNERS, len(others))) or [alone]
    for partner in partners:
        pairs = tuple(map(pair_beside, shown, partner.demonstrations))  # as many as the shorter one has
        question = pair_beside(example.question, partner.question)
        made = Example(example.id, pairs, question.input, question.output)
        if fits(made.grids):
            return made
    return example


def swapped(example: Example, pool: Sequence[Example], rng: random.Random) -> Example:
    """Outputs as inputs and inputs as outputs; done twice, the example again."""
    shown = tuple(Pair(pair.output, pair.input) for pair in example.demonstrations)
    return Example(example.id, shown, example.output, example.test_input)


PLAIN, COMBINE = "plain", "combine"
# name -> (example, those that it may be combined with, random generator) to the changed example
CHANGES: dict[str, Callable[[Example, Sequence[Example], random.Random], Example]] = {
    PLAIN: lambda example, pool, rng: example,
    **{kind: partial(resized, kind) for kind in RESIZES},
    COMBINE: combined,
    "swap sides": swapped,
}


def changed(example: Example, mixture: Mixture, pool: Sequence[Example], rng: random.Random) -> Example:
    """`example` changed in a way that is drawn from `mixture`."""
    names, weights = zip(*mixture, strict=True)
    return CHANGES[rng.choices(names, weights)[0]](example, pool, rng)
