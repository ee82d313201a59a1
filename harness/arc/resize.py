"""Resizings: changes of a grid's size that lose nothing, each with its exact inverse.

Both sides of every pair get the same one. Different grids stay different, so where a rule leads from inputs to outputs,
one leads from the resized inputs to the resized outputs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.arc.task import LARGEST, Grid


def scale(grid: Grid, factor: int) -> Grid:
    """Every cell as a block of `factor` x `factor` cells."""
    return tuple(tuple(cell for cell in row for _ in range(factor)) for row in grid for _ in range(factor))


def shrink(grid: Grid, factor: int) -> Grid:
    return tuple(row[::factor] for row in grid[::factor])


def tile(grid: Grid, down: int, across: int) -> Grid:
    """The grid repeated `down` and `across`."""
    return tuple(row * across for row in grid) * down


def mirror(grid: Grid, down: int, across: int) -> Grid:
    """The grid with its mirror image below it (`down` 2, else 1) and beside it (`across` 2, else 1)."""
    wide = tuple(row + row[::-1] for row in grid) if across == 2 else grid
    return wide + wide[::-1] if down == 2 else wide


def first_part(grid: Grid, down: int, across: int) -> Grid:
    """The upper left one of `down` x `across` parts."""
    return tuple(row[: len(row) // across] for row in grid[: len(grid) // down])


def pad(grid: Grid, width: int, colour: int) -> Grid:
    """The grid in a frame of `width` cells."""
    side = (colour,) * width
    rows = tuple(side + row + side for row in grid)
    edge = ((colour,) * len(rows[0]),) * width
    return edge + rows + edge


def unpad(grid: Grid, width: int, colour: int) -> Grid:
    return tuple(row[width:-width] for row in grid[width:-width])


# name -> (apply, the part that was resized)
KINDS: dict[str, tuple[Callable[..., Grid], Callable[..., Grid]]] = {
    "scale": (scale, shrink),
    "tile": (tile, first_part),
    "mirror": (mirror, first_part),
    "pad": (pad, unpad),
}


@dataclass(frozen=True)
class Resize:
    """`kind` is a name in KINDS, `numbers` what its functions take besides the grid."""

    kind: str
    numbers: tuple[int, ...]

    def apply(self, grid: Grid) -> Grid:
        return KINDS[self.kind][0](grid, *self.numbers)

    def invert(self, grid: Grid) -> Grid | None:
        """The grid that `apply` turns into `grid`; None where there is none, as a model may answer anything."""
        part = KINDS[self.kind][1](grid, *self.numbers)
        return part if part and part[0] and self.apply(part) == grid else None


_HALVES = ((1, 2), (2, 1), (2, 2))
# name of the kind -> all that are drawn from, alike likely
RESIZES = {
    "scale": tuple(Resize("scale", (factor,)) for factor in (2, 3)),
    "tile": tuple(Resize("tile", parts) for parts in _HALVES),
    "mirror": tuple(Resize("mirror", parts) for parts in _HALVES),
    "pad": tuple(Resize("pad", (width, colour)) for width in (1, 2) for colour in range(10)),
}


def fits(grids: Iterable[Grid]) -> bool:
    """Whether no grid has more than LARGEST cells a side."""
    return all(len(grid) <= LARGEST and len(grid[0]) <= LARGEST for grid in grids)
