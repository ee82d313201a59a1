"""ARC-like tasks made at random: each family is a rule with its own parameters, drawn anew for every task.

A family is a function of a random generator that returns (make_input, rule): a task is several inputs with what the
rule makes of them. `HELD_OUT` families are for testing alone: no model of this project is trained on them.
"""

import random
from collections.abc import Callable

from harness.arc.augment import GEOMETRY
from harness.arc.tasks import Grid, Pair, Puzzle

Rule = Callable[[Grid], Grid]
Family = Callable[[random.Random, int], tuple[Callable[[], Grid], Rule]]


def noise(rng: random.Random, largest: int, density: float | None = None, colours: int | None = None) -> Grid:
    """A random grid of 2 to `largest` cells a side: background 0, and `colours` others at `density`."""
    height, width = rng.randint(2, largest), rng.randint(2, largest)
    palette = rng.sample(range(1, 10), colours or rng.randint(1, 4))
    density = density or rng.uniform(0.3, 0.9)
    return tuple(
        tuple(rng.choice(palette) if rng.random() < density else 0 for _ in range(width)) for _ in range(height)
    )


def same_shape_noise(rng: random.Random, largest: int, **more) -> Callable[[], Grid]:
    """Inputs of one task: of one shape in three tasks of four, as ARC's often are; of any in the others."""
    height, width = rng.randint(2, largest), rng.randint(2, largest)
    fixed = rng.random() < 0.75
    palette = rng.sample(range(1, 10), more.get("colours") or rng.randint(1, 4))
    density = more.get("density") or rng.uniform(0.3, 0.9)

    def make() -> Grid:
        h, w = (height, width) if fixed else (rng.randint(2, largest), rng.randint(2, largest))
        return tuple(tuple(rng.choice(palette) if rng.random() < density else 0 for _ in range(w)) for _ in range(h))

    return make


def _geometric(name: str) -> Family:
    return lambda rng, largest: (same_shape_noise(rng, largest), GEOMETRY[name][0])


def recolour_all(rng: random.Random, largest: int):
    colours = list(range(10))
    rng.shuffle(colours)
    return same_shape_noise(rng, largest), lambda g: tuple(tuple(colours[c] for c in row) for row in g)


def one_colour_becomes(rng: random.Random, largest: int):
    old, new = rng.sample(range(10), 2)
    return same_shape_noise(rng, largest, colours=9), lambda g: tuple(
        tuple(new if c == old else c for c in r) for r in g
    )


def keep_one_colour(rng: random.Random, largest: int):
    kept = rng.randint(1, 9)
    palette = [kept, *rng.sample([c for c in range(1, 10) if c != kept], 2)]
    make = _of_palette(rng, largest, palette)
    return make, lambda g: tuple(tuple(c if c == kept else 0 for c in row) for row in g)


def drop_one_colour(rng: random.Random, largest: int):
    gone = rng.randint(1, 9)
    palette = [gone, *rng.sample([c for c in range(1, 10) if c != gone], 2)]
    return _of_palette(rng, largest, palette), lambda g: tuple(tuple(0 if c == gone else c for c in row) for row in g)


def paint_all(rng: random.Random, largest: int):
    colour = rng.randint(1, 9)
    return same_shape_noise(rng, largest), lambda g: tuple(tuple(colour if c else 0 for c in row) for row in g)


def fill_background(rng: random.Random, largest: int):
    colour = rng.randint(1, 9)
    return same_shape_noise(rng, largest), lambda g: tuple(tuple(c or colour for c in row) for row in g)


def roll_rows(rng: random.Random, largest: int):
    by = rng.choice((-2, -1, 1, 2))
    return same_shape_noise(rng, largest), lambda g: tuple(g[(i - by) % len(g)] for i in range(len(g)))


def roll_columns(rng: random.Random, largest: int):
    by = rng.choice((-2, -1, 1, 2))
    return same_shape_noise(rng, largest), lambda g: tuple(
        tuple(r[(j - by) % len(r)] for j in range(len(r))) for r in g
    )


def shift_down(rng: random.Random, largest: int):
    by = rng.randint(1, 2)
    return same_shape_noise(rng, largest), lambda g: (((0,) * len(g[0]),) * by + g)[: len(g)]


def fall_down(rng: random.Random, largest: int):
    def rule(g: Grid) -> Grid:
        columns = [sorted(column, key=bool) for column in zip(*g, strict=True)]
        return tuple(zip(*columns, strict=True))

    return same_shape_noise(rng, largest, density=rng.uniform(0.3, 0.6)), rule


def crop_to_colour(rng: random.Random, largest: int):
    def make() -> Grid:
        inner = noise(rng, max(2, largest - 2), density=0.9)
        top, left, bottom, right = (rng.randint(0, 2) for _ in range(4))
        width = min(largest, left + len(inner[0]) + right)
        rows = (
            [(0,) * width] * top
            + [((0,) * left + row + (0,) * right)[:width] for row in inner]
            + [(0,) * width] * bottom
        )
        grid = tuple(rows[:largest])
        return grid if any(any(row) for row in grid) else make()

    return make, bounding_box


def bounding_box(g: Grid) -> Grid:
    rows = [i for i, row in enumerate(g) if any(row)]
    columns = [j for j, column in enumerate(zip(*g, strict=True)) if any(column)]
    return tuple(row[columns[0] : columns[-1] + 1] for row in g[rows[0] : rows[-1] + 1])


def tile_twice(rng: random.Random, largest: int):
    across = rng.random() < 0.5
    make = same_shape_noise(rng, max(2, largest // 2 + 1))
    return make, (lambda g: tuple(row + row for row in g)) if across else (lambda g: g + g)


def scale_up(rng: random.Random, largest: int):
    make = same_shape_noise(rng, max(2, largest // 2))
    return make, lambda g: tuple(tuple(c for c in row for _ in range(2)) for row in g for _ in range(2))


def left_half(rng: random.Random, largest: int):
    make = same_shape_noise(rng, largest)
    return make, lambda g: tuple(row[: (len(row) + 1) // 2] for row in g)


def top_half(rng: random.Random, largest: int):
    return same_shape_noise(rng, largest), lambda g: g[: (len(g) + 1) // 2]


def sort_rows(rng: random.Random, largest: int):
    return same_shape_noise(rng, largest), lambda g: tuple(tuple(sorted(row)) for row in g)


def lines_through(rng: random.Random, largest: int):
    """Each coloured cell becomes a full row or a full column of its colour."""
    across = rng.random() < 0.5
    make = same_shape_noise(rng, largest, density=0.12)

    def rule(g: Grid) -> Grid:
        turned = g if across else tuple(zip(*g, strict=True))
        drawn = tuple((next((c for c in row if c), 0),) * len(row) for row in turned)
        return drawn if across else tuple(zip(*drawn, strict=True))

    return make, rule


def most_frequent(rng: random.Random, largest: int):
    def rule(g: Grid) -> Grid:
        cells = [c for row in g for c in row]
        top = max(sorted(set(cells)), key=cells.count)
        return tuple((top,) * len(row) for row in g)

    return same_shape_noise(rng, largest), rule


def mirror_beside(rng: random.Random, largest: int):
    return same_shape_noise(rng, max(2, largest // 2 + 1)), lambda g: tuple(row + row[::-1] for row in g)


def mirror_below(rng: random.Random, largest: int):
    return same_shape_noise(rng, max(2, largest // 2 + 1)), lambda g: g + g[::-1]


def border(rng: random.Random, largest: int):
    colour = rng.randint(1, 9)

    def rule(g: Grid) -> Grid:
        last = len(g) - 1
        return tuple(
            tuple(colour if i in (0, last) or j in (0, len(r) - 1) else c for j, c in enumerate(r))
            for i, r in enumerate(g)
        )

    return same_shape_noise(rng, largest), rule


def swap_two_colours(rng: random.Random, largest: int):
    a, b = rng.sample(range(1, 10), 2)
    swap = {a: b, b: a}
    return _of_palette(rng, largest, [a, b]), lambda g: tuple(tuple(swap.get(c, c) for c in row) for row in g)


def sort_columns(rng: random.Random, largest: int):
    make = same_shape_noise(rng, largest)
    return make, lambda g: tuple(zip(*(sorted(column) for column in zip(*g, strict=True)), strict=True))


def bottom_half(rng: random.Random, largest: int):
    return same_shape_noise(rng, largest), lambda g: g[len(g) // 2 :]


def _of_palette(rng: random.Random, largest: int, palette: list[int]) -> Callable[[], Grid]:
    height, width = rng.randint(2, largest), rng.randint(2, largest)
    fixed = rng.random() < 0.75

    def make() -> Grid:
        h, w = (height, width) if fixed else (rng.randint(2, largest), rng.randint(2, largest))
        return tuple(tuple(rng.choice([0, *palette]) for _ in range(w)) for _ in range(h))

    return make


TRAINED: dict[str, Family] = {
    **{name: _geometric(name) for name in GEOMETRY if name != "identity"},
    **{
        family.__name__: family
        for family in (
            recolour_all,
            one_colour_becomes,
            keep_one_colour,
            drop_one_colour,
            paint_all,
            fill_background,
            roll_rows,
            roll_columns,
            shift_down,
            fall_down,
            crop_to_colour,
            tile_twice,
            scale_up,
            left_half,
            top_half,
            sort_rows,
            lines_through,
            most_frequent,
        )
    },
}
HELD_OUT: dict[str, Family] = {
    family.__name__: family
    for family in (mirror_beside, mirror_below, border, swap_two_colours, sort_columns, bottom_half)
}


def task(family: Family, rng: random.Random, largest: int, pairs: int = 4, name: str = "made") -> tuple[Puzzle, Grid]:
    """A task of `pairs` demonstrations and one test input, and the test's output; grids of at most 30 a side."""
    while True:
        make, rule = family(rng, largest)
        inputs = [make() for _ in range(pairs + 1)]
        outputs = [rule(grid) for grid in inputs]
        # A rule that changes nothing in any pair shows nothing.
        if any(a != b for a, b in zip(inputs, outputs, strict=True)):
            break
    demonstrations = tuple(Pair(a, b) for a, b in zip(inputs[:-1], outputs[:-1], strict=True))
    return Puzzle(name, demonstrations, (inputs[-1],)), outputs[-1]


def chained(rng: random.Random, largest: int):
    """Two trained rules one after the other."""
    first, second = rng.sample([f for f in TRAINED.values() if f not in (crop_to_colour, scale_up, tile_twice)], 2)
    make, rule = first(rng, largest)
    _, then = second(rng, largest)
    return make, lambda g: then(rule(g))
