"""Rules about whole grids: two halves combined by logic, tilings, patterns, sizes."""

import random

from harness.arc.augment import GEOMETRY
from harness.arc.generated.grids import painted, random_grid, same_shape_noise, sides
from harness.arc.task import Grid

_LOGIC = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: bool(a) != bool(b),
    "nor": lambda a, b: not a and not b,
    "only_left": lambda a, b: a and not b,
    "nand": lambda a, b: not (a and b),
}


def beside(*parts: Grid) -> Grid:
    return tuple(sum(rows, ()) for rows in zip(*parts, strict=True))


def _binary(rng: random.Random, height: int, width: int, colour: int, density: float = 0.5) -> Grid:
    return random_grid(height, width, lambda: colour if rng.random() < density else 0)


# Two halves.
def _halves(rng: random.Random, largest: int):
    """A maker of two grids of one shape side by side, with or without a line between, and a function to split them."""
    height, width = rng.randint(2, largest), rng.randint(2, max(2, largest // 2))
    left, right, line = rng.sample(range(1, 10), 3)
    right = left if rng.random() < 0.3 else right
    wall = ((line,),) * height if rng.random() < 0.6 else ((),) * height

    def make() -> Grid:
        return beside(_binary(rng, height, width, left), wall, _binary(rng, height, width, right))

    return make, lambda g: (tuple(r[:width] for r in g), tuple(r[-width:] for r in g))


def logic(rng: random.Random, largest: int):
    """A logical function of the halves, cell by cell, drawn in one colour."""
    make, parts = _halves(rng, largest)
    joined, colour = rng.choice(list(_LOGIC.values())), rng.randint(1, 9)

    def rule(g: Grid) -> Grid:
        a, b = parts(g)
        return tuple(
            tuple(colour if joined(x, y) else 0 for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True)
        )

    return make, rule


def overlay(rng: random.Random, largest: int):
    """One half is laid over the other."""
    make, parts = _halves(rng, largest)
    swapped = rng.random() < 0.5

    def rule(g: Grid) -> Grid:
        top, under = reversed(parts(g)) if swapped else parts(g)
        return tuple(tuple(x or y for x, y in zip(r, s, strict=True)) for r, s in zip(top, under, strict=True))

    return make, rule


# Tilings and sizes.
def tile_turned(rng: random.Random, largest: int):
    """Copies in a row, a column or a square, each with its own turn or reflection."""
    tall, wide = rng.choice([(1, 2), (2, 1), (2, 2), (2, 2), (1, 3), (3, 3)])
    shape = same_shape_noise(rng, max(2, min(4, largest // max(tall, wide) + 1)), square=True)
    names = ["identity", "flip_rows", "flip_columns", "half_turn"]
    names = names if rng.random() < 0.7 else list(GEOMETRY)
    turns = [[rng.choice(names) for _ in range(wide)] for _ in range(tall)]
    # In half of the tasks the copies are reflections of their neighbours, as in a kaleidoscope.
    if rng.random() < 0.5:
        across, down = rng.choice([("flip_columns", "flip_rows"), ("identity", "flip_rows")])
        turns = [
            [("identity", across, down, "half_turn")[2 * (i % 2) + j % 2] for j in range(wide)] for i in range(tall)
        ]

    def rule(g: Grid) -> Grid:
        return sum((beside(*(GEOMETRY[name][0](g) for name in row)) for row in turns), ())

    return shape, rule


def tile_grid(rng: random.Random, largest: int):
    tall, wide = rng.randint(1, 3), rng.randint(2, 3)
    make = same_shape_noise(rng, max(2, min(4, largest // 2)))
    return make, lambda g: tuple(row * wide for row in g) * tall


def _scaled(g: Grid, by: int) -> Grid:
    """Each cell as `by` times `by` cells."""
    return tuple(tuple(c for c in row for _ in range(by)) for row in g for _ in range(by))


def scale_up(rng: random.Random, largest: int):
    by = rng.choice((2, 2, 3))
    make = same_shape_noise(rng, max(2, min(4, largest // by)))
    return make, lambda g: _scaled(g, by)


def scale_down(rng: random.Random, largest: int):
    by = rng.choice((2, 2, 3))
    small = same_shape_noise(rng, max(2, min(5, largest // by)))
    return lambda: _scaled(small(), by), lambda g: tuple(row[::by] for row in g[::by])


def self_similar(rng: random.Random, largest: int):
    """A coloured cell becomes a copy of the whole grid and a background cell becomes empty, or the other way round."""
    side = 2 if largest < 9 or rng.random() < 0.5 else 3
    colour, where = rng.randint(1, 9), rng.random() < 0.7

    def rule(g: Grid) -> Grid:
        empty = ((0,) * side,) * side
        return sum((beside(*(g if bool(c) == where else empty for c in row)) for row in g), ())

    return lambda: _binary(rng, side, side, colour, 0.55), rule


def panel_of_many(rng: random.Random, largest: int):
    """The output is the panel, of two or three in a row, with most (in some tasks fewest) coloured cells."""
    count, height, width = rng.randint(2, 3), rng.randint(2, 4), rng.randint(2, 3)
    line, *palette = rng.sample(range(1, 10), 4)
    most = rng.random() < 0.6

    def make() -> Grid:
        # Until the counts differ, so that the answer is unique.
        while True:
            panels = [_binary(rng, height, width, rng.choice(palette), rng.uniform(0.2, 0.9)) for _ in range(count)]
            sizes = [sum(map(bool, sum(panel, ()))) for panel in panels]
            if len(set(sizes)) == count:
                return beside(*(part for panel in panels for part in (panel, ((line,),) * height)))

    def rule(g: Grid) -> Grid:
        panels = [tuple(row[k * (width + 1) :][:width] for row in g) for k in range(count)]
        return (max if most else min)(panels, key=lambda panel: sum(map(bool, sum(panel, ()))))

    return make, rule


def repeat_the_pattern(rng: random.Random, largest: int):
    """A periodic grid has a hole, which is filled."""
    height, width = (max(4, side) for side in sides(rng, max(4, largest)))
    tall, wide = rng.randint(1, 3), rng.randint(2, 3)

    # The rule looks the full grid up; finding the period again would take more code.
    def make() -> Grid:
        tile = [[rng.randint(1, 9) for _ in range(wide)] for _ in range(tall)]
        full = tuple(tuple(tile[i % tall][j % wide] for j in range(width)) for i in range(height))
        full_of[holed := _hole(rng, full)] = full
        return holed

    full_of: dict[Grid, Grid] = {}
    return make, lambda g: full_of[g]


def _hole(rng: random.Random, g: Grid) -> Grid:
    h, w = rng.randint(1, len(g) // 2), rng.randint(1, len(g[0]) // 2)
    top, left = rng.randint(0, len(g) - h), rng.randint(0, len(g[0]) - w)
    return painted(g, {(i, j): 0 for i in range(top, top + h) for j in range(left, left + w)})


def make_symmetric(rng: random.Random, largest: int):
    """A mirror-symmetric grid has a hole, or an empty half, which is completed."""
    height, half = rng.randint(2, largest), rng.randint(1, max(1, largest // 2))
    empty = rng.random() < 0.5
    palette = rng.sample(range(1, 10), 3)

    def make() -> Grid:
        left = random_grid(height, half, lambda: rng.choice([0, *palette]))
        full = beside(left, GEOMETRY["flip_columns"][0](left))
        shown = beside(left, ((0,) * half,) * height) if empty else _hole(rng, full)
        full_of[shown] = full
        return shown

    full_of: dict[Grid, Grid] = {}
    return make, lambda g: full_of[g]


def drop_repeats(rng: random.Random, largest: int):
    """Rows and columns that repeat their predecessor are removed."""
    small = same_shape_noise(rng, max(2, min(4, largest // 2)), density=0.95, colours=4)

    def once(g: Grid) -> Grid:
        return tuple(row for i, row in enumerate(g) if i == 0 or row != g[i - 1])

    def make() -> Grid:
        g = small()
        g = tuple(row for row in g for _ in range(rng.randint(1, 3)))
        return tuple(zip(*(c for c in zip(*g, strict=True) for _ in range(rng.randint(1, 2))), strict=True))[:30]

    def rule(g: Grid) -> Grid:
        turned = tuple(zip(*once(g), strict=True))
        return tuple(zip(*once(turned), strict=True))

    return make, rule


def crop_corner(rng: random.Random, largest: int):
    height, width = rng.randint(1, 3), rng.randint(2, 3)
    make = same_shape_noise(rng, max(3, largest))
    return make, lambda g: tuple(row[:width] for row in g[:height])


def every_other(rng: random.Random, largest: int):
    first = rng.randint(0, 1)
    return same_shape_noise(rng, max(3, largest)), lambda g: g[first::2]


def stairs(rng: random.Random, largest: int):
    """A single row grows downwards: every next row is one cell longer, or shifted by one."""
    grows, length = rng.random() < 0.6, rng.randint(3, max(3, largest))

    def make() -> Grid:
        palette = rng.sample(range(1, 10), 2)
        filled = rng.randint(1, max(1, length // 2))
        return (tuple(rng.choice(palette) for _ in range(filled)) + (0,) * (length - filled),)

    def rule(g: Grid) -> Grid:
        filled = [c for c in g[0] if c]
        rows = range(max(2, length // 2))
        if grows:
            return tuple(tuple((filled + [filled[-1]] * k + [0] * length)[:length]) for k in rows)
        return tuple(((0,) * k + g[0])[:length] for k in rows)

    return make, rule


TRAINED = (
    logic,
    overlay,
    tile_turned,
    tile_grid,
    scale_up,
    scale_down,
    self_similar,
    panel_of_many,
    repeat_the_pattern,
    make_symmetric,
    drop_repeats,
    crop_corner,
    every_other,
    stairs,
)
