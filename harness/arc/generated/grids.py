"""Random inputs for generated tasks, and small acts on grids that the families share."""

import random
from collections.abc import Callable

from harness.arc.task import Grid

Make = Callable[[], Grid]
Rule = Callable[[Grid], Grid]
Family = Callable[[random.Random, int], tuple[Make, Rule]]


def sides(rng: random.Random, largest: int) -> tuple[int, int]:
    """Height and width, 2 to `largest` each; in half of the draws a square, as ARC's grids often are."""
    height = rng.randint(2, largest)
    return height, height if rng.random() < 0.5 else rng.randint(2, largest)


def random_grid(height: int, width: int, cell: Callable[[], int]) -> Grid:
    """A grid whose cells are drawn one after the other by `cell`, row by row."""
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
    """A maker of random grids: background 0, and `colours` others at `density`, those of `among` included."""
    shape = _shapes(rng, largest)
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
    """`make`, drawn again until the grid is `good`; after `tries` a ValueError says that none was."""

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
