"""Rules about colours: which colour becomes which, by task, by place, or by a legend in the grid."""

import random
from collections import Counter

from harness.arc.generated.grids import drawn_once, of_palette, random_grid, same_shape_noise, sides
from harness.arc.task import Grid


def _cells(g: Grid, new) -> Grid:
    """`g` with new(row, column, colour) in each cell."""
    return tuple(tuple(new(i, j, c) for j, c in enumerate(row)) for i, row in enumerate(g))


# Recolouring by a table that is the same in all pairs of a task.
def recolour_all(rng: random.Random, largest: int):
    colours = list(range(10))
    rng.shuffle(colours)
    return same_shape_noise(rng, largest), lambda g: _cells(g, lambda i, j, c: colours[c])


def one_colour_becomes(rng: random.Random, largest: int):
    old, new = rng.sample(range(10), 2)
    # The background is in every grid anyway.
    make = same_shape_noise(rng, largest, colours=rng.randint(2, 5), among=[old] if old else None)
    return make, lambda g: _cells(g, lambda i, j, c: new if c == old else c)


def keep_one_colour(rng: random.Random, largest: int):
    kept, *others = rng.sample(range(1, 10), 3)
    return of_palette(rng, largest, [kept, *others]), lambda g: _cells(g, lambda i, j, c: c if c == kept else 0)


def drop_one_colour(rng: random.Random, largest: int):
    gone, *others = rng.sample(range(1, 10), 3)
    return of_palette(rng, largest, [gone, *others]), lambda g: _cells(g, lambda i, j, c: 0 if c == gone else c)


def paint_all(rng: random.Random, largest: int):
    colour = rng.randint(1, 9)
    return same_shape_noise(rng, largest), lambda g: _cells(g, lambda i, j, c: colour if c else 0)


def fill_background(rng: random.Random, largest: int):
    colour = rng.randint(1, 9)
    return same_shape_noise(rng, largest), lambda g: _cells(g, lambda i, j, c: c or colour)


def swap_with_background(rng: random.Random, largest: int):
    """The grid's single colour and the background are swapped; each pair has its own colour."""

    def make() -> Grid:
        return same_shape_noise(rng, largest, density=rng.uniform(0.3, 0.7), colours=1)()

    def rule(g: Grid) -> Grid:
        colour = max(map(max, g))
        return _cells(g, lambda i, j, c: 0 if c else colour)

    return drawn_once(make, lambda g: any(map(any, g))), rule


# Recolouring by place: column, row, or a legend in the first row.
def colour_by_column(rng: random.Random, largest: int):
    """Every coloured cell takes the colour of its column; the columns' colours alternate."""
    colours = rng.sample(range(1, 10), rng.randint(2, 3))
    make = same_shape_noise(rng, largest, colours=1)
    return make, lambda g: _cells(g, lambda i, j, c: colours[j % len(colours)] if c else 0)


def legend(rng: random.Random, largest: int):
    """The first row names an old and a new colour; the other rows are recoloured so."""
    height, width = (max(3, side) for side in sides(rng, largest))

    def make() -> Grid:
        old, new, other = rng.sample(range(1, 10), 3)
        body = random_grid(height - 1, width, lambda: rng.choice([0, old, old, other]))
        return ((old, new) + (0,) * (width - 2), *body)

    def rule(g: Grid) -> Grid:
        old, new = g[0][:2]
        return (g[0], *_cells(g[1:], lambda i, j, c: new if c == old else c))

    return make, rule


def mark_uniform_rows(rng: random.Random, largest: int):
    """Rows of a single colour are marked; the others are cleared, in some tasks left."""
    colour, clears = rng.randint(1, 9), rng.random() < 0.6
    height, width = rng.randint(3, max(3, largest)), rng.randint(2, max(2, min(4, largest)))
    palette = rng.sample(range(1, 10), 3)

    def make() -> Grid:
        # Enough uniform rows that most grids show the rule.
        def row():
            return (rng.choice(palette),) * width if rng.random() < 0.4 else tuple(rng.choices(palette, k=width))

        return tuple(row() for _ in range(height))

    def rule(g: Grid) -> Grid:
        return _cells(g, lambda i, j, c: colour if len(set(g[i])) == 1 else 0 if clears else c)

    return make, rule


# Counting colours.
def _most(g: Grid, coloured: bool) -> int:
    """The most frequent colour, on a tie the smallest; with `coloured` the background does not count."""
    counts = Counter(c for row in g for c in row if c or not coloured)
    return min(counts, key=lambda c: (-counts[c], c)) if counts else 0


def most_frequent(rng: random.Random, largest: int):
    return same_shape_noise(rng, largest), lambda g: ((_most(g, False),) * len(g[0]),) * len(g)


def keep_most_frequent(rng: random.Random, largest: int):
    def rule(g: Grid) -> Grid:
        top = _most(g, True)
        return _cells(g, lambda i, j, c: c if c == top else 0)

    return same_shape_noise(rng, largest, colours=rng.randint(2, 3), density=0.7), rule


def name_the_colour(rng: random.Random, largest: int):
    """The output is one cell: the most (in some tasks least) frequent colour."""
    most = rng.random() < 0.6

    def rule(g: Grid) -> Grid:
        counts = Counter(c for row in g for c in row if c)
        pick = max if most else min
        return ((pick(sorted(counts), key=lambda c: counts[c]),),)

    make = same_shape_noise(rng, largest, colours=rng.randint(2, 3), density=0.7)
    return drawn_once(make, lambda g: len({c for row in g for c in row if c}) > 1), rule


def row_majority(rng: random.Random, largest: int):
    """Each row becomes its most frequent colour."""
    make = same_shape_noise(rng, max(3, largest), density=1.0, colours=3)
    return make, lambda g: tuple((_most((row,), False),) * len(row) for row in g)


TRAINED = (
    recolour_all,
    one_colour_becomes,
    keep_one_colour,
    drop_one_colour,
    paint_all,
    fill_background,
    swap_with_background,
    colour_by_column,
    legend,
    mark_uniform_rows,
    most_frequent,
    keep_most_frequent,
    name_the_colour,
    row_majority,
)
