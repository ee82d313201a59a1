"""What the families of generated tasks share: random inputs, and small operations on grids."""

import random
from collections.abc import Callable

from harness.arc.task import Grid

# A family draws the parameters of one task and returns its input maker and its rule. Every draw comes from the one
# generator, in a fixed order, so that a seed gives the same task for ever.
Make = Callable[[], Grid]
Rule = Callable[[Grid], Grid]
Family = Callable[[random.Random, int], tuple[Make, Rule]]


def sides(rng: random.Random, largest: int) -> tuple[int, int]:
    """Height and width, 2 to `largest`; half of the draws are square, as ARC's grids often are."""
    height = rng.randint(2, largest)
    return height, height if rng.random() < 0.5 else rng.randint(2, largest)


def random_grid(height: int, width: int, cell: Callable[[], int]) -> Grid:
    """A grid whose cells are drawn by `cell`, row by row."""
    return tuple(tuple(cell() for _ in range(width)) for _ in range(height))


def _shapes(rng: random.Random, largest: int) -> Callable[[], tuple[int, int]]:
    """Draws (height, width). Three tasks in four have one shape for all inputs, as ARC's often do."""
    fixed, shape = rng.random() < 0.75, sides(rng, largest)
    return lambda: shape if fixed else sides(rng, largest)


def same_shape_noise(
    rng: random.Random,
    largest: int,
    density: float | None = None,
    colours: int | None = None,
    among: list[int] | None = None,
    square: bool = False,
) -> Make:
    """A maker of random grids: `colours` colours, including those of `among`, at `density` on background 0."""
    shape = _shapes(rng, largest)
    # Colours that the rule is about must be there; the rest of the palette is free.
    among = among or []
    others = [c for c in range(1, 10) if c not in among]
    palette = among + rng.sample(others, max(1, (colours or rng.randint(1, 4)) - len(among)))
    density = density or rng.uniform(0.3, 0.9)

    def make() -> Grid:
        height, width = shape()
        return random_grid(
            height, height if square else width, lambda: rng.choice(palette) if rng.random() < density else 0
        )

    return make


def of_palette(rng: random.Random, largest: int, palette: list[int]) -> Make:
    """A maker of grids in which 0 and the colours of `palette` are equally likely in every cell."""
    shape = _shapes(rng, largest)
    return lambda: random_grid(*shape(), lambda: rng.choice([0, *palette]))


def drawn_once(make: Make, good: Callable[[Grid], bool], tries: int = 200) -> Make:
    """A maker that repeats `make` until the grid is `good`. It raises ValueError after `tries` failures."""

    def again() -> Grid:
        for _ in range(tries):
            grid = make()
            if good(grid):
                return grid
        raise ValueError("no input of this family fits its rule")

    return again


def coloured(g: Grid) -> list[tuple[int, int]]:
    """(row, column) of every cell that is not background, row by row."""
    return [(i, j) for i, row in enumerate(g) for j, c in enumerate(row) if c]


def painted(g: Grid, cells: dict[tuple[int, int], int]) -> Grid:
    """`g` with the colours of `cells`, {(row, column): colour}; cells outside the grid are ignored."""
    return tuple(tuple(cells.get((i, j), c) for j, c in enumerate(row)) for i, row in enumerate(g))
