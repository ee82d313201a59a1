"""Augmentation: views of a task that keep its rule, each with an inverse for the prediction.

A view is a turn or reflection, a permutation of the colours, a resizing, and an order of the demonstrations. A
prediction made in a view is mapped back by the inverses in reverse order.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.arc.resize import Resize
from harness.arc.task import Grid, Pair, Task

Colours = tuple[int, ...]  # ten entries: the new colour of each old one
SAME: Colours = tuple(range(10))


def transpose(grid: Grid) -> Grid:
    return tuple(zip(*grid, strict=True))


def flip_rows(grid: Grid) -> Grid:
    """Upside down."""
    return grid[::-1]


def flip_columns(grid: Grid) -> Grid:
    """Left to right."""
    return tuple(row[::-1] for row in grid)


def rotate(grid: Grid) -> Grid:
    """A quarter turn clockwise."""
    return tuple(zip(*grid[::-1], strict=True))


def rotate_back(grid: Grid) -> Grid:
    """A quarter turn the other way."""
    return tuple(zip(*grid, strict=True))[::-1]


def half_turn(grid: Grid) -> Grid:
    return tuple(row[::-1] for row in grid[::-1])


def anti_transpose(grid: Grid) -> Grid:
    """Mirrored in the other diagonal."""
    return tuple(zip(*(row[::-1] for row in grid[::-1]), strict=True))


# name -> (apply, invert): the eight symmetries of the square
GEOMETRY = {
    "identity": (lambda grid: grid, lambda grid: grid),
    "rotate": (rotate, rotate_back),
    "half_turn": (half_turn, half_turn),
    "rotate_back": (rotate_back, rotate),
    "flip_rows": (flip_rows, flip_rows),
    "flip_columns": (flip_columns, flip_columns),
    "transpose": (transpose, transpose),
    "anti_transpose": (anti_transpose, anti_transpose),
}


def recolour(grid: Grid, colours: Colours) -> Grid:
    return tuple(tuple(colours[cell] for cell in row) for row in grid)


def inverse(colours: Colours) -> Colours:
    back = [0] * 10
    for old, new in enumerate(colours):
        back[new] = old
    return tuple(back)


@dataclass(frozen=True)
class View:
    """`geometry` is a name in GEOMETRY; `order` holds indices of demonstrations, None to keep their order."""

    geometry: str = "identity"
    colours: Colours = SAME
    order: tuple[int, ...] | None = None
    resize: Resize | None = None

    def apply(self, grid: Grid) -> Grid:
        turned = GEOMETRY[self.geometry][0](grid)
        coloured = turned if self.colours == SAME else recolour(turned, self.colours)
        return self.resize.apply(coloured) if self.resize else coloured

    def invert(self, grid: Grid) -> Grid | None:
        """The grid that `apply` turns into `grid`; None where a resizing gives no such grid."""
        coloured = self.resize.invert(grid) if self.resize else grid
        if coloured is None:
            return None
        plain = coloured if self.colours == SAME else recolour(coloured, inverse(self.colours))
        return GEOMETRY[self.geometry][1](plain)

    def pairs(self, pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        """Demonstrations in this view, reordered if the view's order is of as many."""
        viewed = tuple(Pair(self.apply(pair.input), self.apply(pair.output)) for pair in pairs)
        return tuple(viewed[i] for i in self.order) if self.order and len(self.order) == len(viewed) else viewed

    def of(self, task: Task) -> Task:
        """`task` in this view: all its grids, and the demonstrations in the view's order."""
        return Task(task.id, self.pairs(task.demonstrations), tuple(map(self.apply, task.test_inputs)))


def draw(
    rng: random.Random,
    shown: int,
    geometry: bool = True,
    colours: bool = True,
    order: bool = True,
    keep_background: float = 0.9,
    keep_colours: float = 0.0,
) -> View:
    """A random view for a task with `shown` demonstrations; what is switched off stays as it is.

    `keep_background` is the probability that colour 0 stays 0 (0.9 in the published recipe). `keep_colours` is the
    probability that all colours stay, for the arm "preserve color".
    """
    # The order of these draws is part of every seed's meaning.
    permuted = SAME
    if colours and rng.random() >= keep_colours:
        first = 1 if rng.random() < keep_background else 0
        permuted = (*range(first), *_shuffled(rng, range(first, 10)))
    shuffled = _shuffled(rng, range(shown)) if order else None
    return View(rng.choice(list(GEOMETRY)) if geometry else "identity", permuted, shuffled)


def _shuffled(rng: random.Random, numbers: range) -> tuple[int, ...]:
    mixed = list(numbers)
    rng.shuffle(mixed)
    return tuple(mixed)


def views(count: int, shown: int, seed: int = 0) -> list[View]:
    """`count` distinct views to predict in: first the plain one, then the other seven turns, then random ones."""
    rng = random.Random(seed)
    distinct = dict.fromkeys([View(), *map(View, GEOMETRY)])
    while len(distinct) < count:
        distinct.setdefault(draw(rng, shown))
    return list(distinct)[:count]
