"""Random ARC-like tasks: each family is a rule whose parameters are drawn anew for every task.

A family is a function of a random generator and the largest side. It returns (make_input, rule); a task is several
inputs with the rule's outputs. `HELD_OUT` families are for testing alone: no model of this project is trained on them,
nor on a family that a view (a turn, other colours) makes of them.
"""

import random

from harness.arc.augment import GEOMETRY
from harness.arc.generated import colours, panels, shapes
from harness.arc.generated.grids import Family, coloured, drawn_once, painted, same_shape_noise
from harness.arc.task import Grid, Pair, Task


def _geometric(name: str) -> Family:
    return lambda rng, largest: (same_shape_noise(rng, largest), GEOMETRY[name][0])


# Moving and cropping.
def roll_rows(rng: random.Random, largest: int):
    by = rng.choice((-2, -1, 1, 2))
    return same_shape_noise(rng, largest), lambda g: tuple(g[(i - by) % len(g)] for i in range(len(g)))


def shift_down(rng: random.Random, largest: int):
    by = rng.randint(1, 2)
    return same_shape_noise(rng, largest), lambda g: (((0,) * len(g[0]),) * by + g)[: len(g)]


def fall_down(rng: random.Random, largest: int):
    def rule(g: Grid) -> Grid:
        columns = [sorted(column, key=bool) for column in zip(*g, strict=True)]
        return tuple(zip(*columns, strict=True))

    return same_shape_noise(rng, largest, density=rng.uniform(0.3, 0.6)), rule


def crop_to_box(rng: random.Random, largest: int):
    inner = same_shape_noise(rng, max(2, largest - 2), density=0.8)

    # A small picture with margins of background on some of its sides.
    def make() -> Grid:
        left, right = rng.randint(0, 2), rng.randint(0, 2)
        rows = [(0,) * left + row + (0,) * right for row in inner()]
        empty = (0,) * len(rows[0])
        return (empty,) * rng.randint(0, 2) + tuple(rows) + (empty,) * rng.randint(0, 2)

    return drawn_once(make, lambda g: any(map(any, g))), bounding_box


def bounding_box(g: Grid) -> Grid:
    return shapes.crop(g, coloured(g))


def top_half(rng: random.Random, largest: int):
    middle = rng.randint(0, 1)  # whether the middle one of an odd number of rows belongs to the top
    return same_shape_noise(rng, largest), lambda g: g[: (len(g) + middle) // 2]


def sort_rows(rng: random.Random, largest: int):
    return same_shape_noise(rng, largest), lambda g: tuple(tuple(sorted(row)) for row in g)


def lines_through(rng: random.Random, largest: int):
    """Every row takes the colour of its first coloured cell."""
    make = same_shape_noise(rng, largest, density=0.12)
    return make, lambda g: tuple((next((c for c in row if c), 0),) * len(row) for row in g)


# Held out.
def border(rng: random.Random, largest: int):
    """The cells at the edge of the grid take one colour."""
    colour = rng.randint(1, 9)

    def rule(g: Grid) -> Grid:
        bottom, right = len(g) - 1, len(g[0]) - 1
        edge = [(i, j) for i in range(bottom + 1) for j in range(right + 1) if i in (0, bottom) or j in (0, right)]
        return painted(g, dict.fromkeys(edge, colour))

    return same_shape_noise(rng, max(3, largest)), rule


def swap_halves(rng: random.Random, largest: int):
    """The left and right halves are swapped; a middle column stays."""
    make = same_shape_noise(rng, max(3, largest))

    def rule(g: Grid) -> Grid:
        half = len(g[0]) // 2
        return tuple(row[len(row) - half :] + row[half : len(row) - half] + row[:half] for row in g)

    return make, rule


def stretch(rng: random.Random, largest: int):
    """Every row is doubled."""
    return same_shape_noise(rng, max(2, largest // 2)), lambda g: tuple(row for row in g for _ in range(2))


def turn_every_other_row(rng: random.Random, largest: int):
    first = rng.randint(0, 1)
    make = same_shape_noise(rng, max(3, largest))
    return make, lambda g: tuple(row[::-1] if i % 2 == first else row for i, row in enumerate(g))


def _by_name(*families: Family) -> dict[str, Family]:
    return {family.__name__: family for family in families}


TRAINED: dict[str, Family] = {
    **{name: _geometric(name) for name in GEOMETRY if name != "identity"},
    **_by_name(roll_rows, shift_down, fall_down, crop_to_box, top_half, sort_rows, lines_through),
    **_by_name(*colours.TRAINED, *panels.TRAINED, *shapes.TRAINED),
    **shapes.NAMED,
}
HELD_OUT: dict[str, Family] = {
    **_by_name(border, swap_halves, stretch, turn_every_other_row, shapes.hollow),
    "surround": shapes.surround,
}
# Rules that accept any grid, for chains of two.
_SAME_SIZE = [f for name, f in TRAINED.items() if name in GEOMETRY or name in (
    "roll_rows", "shift_down", "fall_down", "sort_rows", "recolour_all", "one_colour_becomes", "paint_all",
    "fill_background", "tile_grid", "top_half", "crop_corner", "lines_through", "keep_most_frequent",
)]  # fmt: skip


def chained(rng: random.Random, largest: int):
    """Two trained rules, one applied after the other, of those that accept any grid."""
    first, second = rng.sample(_SAME_SIZE, 2)
    make, rule = first(rng, largest)
    _, then = second(rng, largest)
    return make, lambda g: then(rule(g))


def task(family: Family, rng: random.Random, largest: int, shown: int = 4, name: str = "made") -> tuple[Task, Grid]:
    """A task with `shown` demonstrations and one test input, and the test output.

    Parameters are drawn again if no pair changes, if a grid is empty or has more than 30 cells per side, or if no
    input fits the rule.
    """
    while True:
        try:
            make, rule = family(rng, largest)
            inputs = [make() for _ in range(shown + 1)]
            outputs = [rule(grid) for grid in inputs]
        except ValueError:  # no input that fits these parameters
            continue
        changed = any(a != b for a, b in zip(inputs, outputs, strict=True))
        sizes = [side for g in (*inputs, *outputs) for side in (len(g), len(g[0]) if g else 0)]
        if changed and min(sizes) > 0 and max(sizes) <= 30:
            break
    demonstrations = tuple(Pair(a, b) for a, b in zip(inputs[:-1], outputs[:-1], strict=True))
    return Task(name, demonstrations, (inputs[-1],)), outputs[-1]
