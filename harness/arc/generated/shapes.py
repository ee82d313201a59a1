"""Rules about objects: connected cells, rectangles, lines, inside and outside."""

import random
from collections.abc import Callable, Iterator

from harness.arc.generated.grids import coloured, drawn_once, painted, same_shape_noise, sides
from harness.arc.task import Grid

_AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
_BESIDE = [(-1, 0), (1, 0), (0, -1), (0, 1)]


def components(g: Grid, same_colour: bool = True) -> list[list[tuple[int, int]]]:
    """Groups of coloured cells that share edges, the largest first; on a tie the upper left one first."""
    left = set(coloured(g))
    groups = []
    for start in sorted(left):
        if start not in left:
            continue
        # Flood fill from here.
        left.discard(start)
        group, edge = [], [start]
        while edge:
            i, j = edge.pop()
            group.append((i, j))
            for near in ((i + di, j + dj) for di, dj in _BESIDE):
                if near in left and (not same_colour or g[near[0]][near[1]] == g[i][j]):
                    left.discard(near)
                    edge.append(near)
        groups.append(group)
    return sorted(groups, key=len, reverse=True)


def inside(g: Grid) -> set[tuple[int, int]]:
    """Background cells that are enclosed: no path over background cells leads to the edge of the grid."""
    # A flood fill from the edge removes the others.
    height, width = len(g), len(g[0])
    zeros = {(i, j) for i in range(height) for j in range(width) if not g[i][j]}
    edge = [(i, j) for i, j in zeros if i in (0, height - 1) or j in (0, width - 1)]
    zeros.difference_update(edge)
    while edge:
        i, j = edge.pop()
        for near in ((i + di, j + dj) for di, dj in _BESIDE):
            if near in zeros:
                zeros.discard(near)
                edge.append(near)
    return zeros


def crop(g: Grid, cells: list[tuple[int, int]]) -> Grid:
    """The smallest rectangle of `g` around `cells`."""
    rows, columns = [i for i, _ in cells], [j for _, j in cells]
    return tuple(row[min(columns) : max(columns) + 1] for row in g[min(rows) : max(rows) + 1])


def rectangles(rng: random.Random, largest: int, hollow: bool, few: int = 2):
    """A maker of grids with one to `few` rectangles, `hollow` or solid, which may overlap."""
    low = 4 if hollow else 3
    height, width = (max(low, side) for side in sides(rng, largest))
    palette = rng.sample(range(1, 10), rng.randint(1, 3))

    def make() -> Grid:
        grid = [[0] * width for _ in range(height)]
        for _ in range(rng.randint(1, few)):
            h, w = (rng.randint(3 if hollow else 2, max(3, min(6, side))) for side in (height, width))
            h, w = min(h, height), min(w, width)
            top, left, colour = rng.randint(0, height - h), rng.randint(0, width - w), rng.choice(palette)
            for i in range(top, top + h):
                for j in range(left, left + w):
                    border = i in (top, top + h - 1) or j in (left, left + w - 1)
                    grid[i][j] = colour if border or not hollow else 0
        return tuple(map(tuple, grid))

    return make


def fill_inside(rng: random.Random, largest: int):
    colour, make = rng.randint(1, 9), rectangles(rng, max(4, largest), hollow=True)
    return make, lambda g: painted(g, dict.fromkeys(inside(g), colour))


def hollow(rng: random.Random, largest: int):
    """Only the outline of every object stays."""

    def rule(g: Grid) -> Grid:
        deep = {
            (i, j): 0
            for i in range(1, len(g) - 1)
            for j in range(1, len(g[0]) - 1)
            if g[i][j] and all(g[i + di][j + dj] == g[i][j] for di, dj in _AROUND)
        }
        return painted(g, deep)

    return rectangles(rng, max(4, largest), hollow=False), rule


def points(rng: random.Random, largest: int, most: int = 3, colours: int = 2):
    """A maker of grids with one to `most` single cells."""
    height, width = (max(3, side) for side in sides(rng, largest))
    palette = rng.sample(range(1, 10), colours)

    def make() -> Grid:
        cells = [(rng.randrange(height), rng.randrange(width)) for _ in range(rng.randint(1, most))]
        return painted(((0,) * width,) * height, {cell: rng.choice(palette) for cell in cells})

    return make


# Single cells grow: a stamp around each, or rays to the edge of the grid.
def _stamp(offsets: list[tuple[int, int]]):
    """A family that colours the background cells at `offsets` from every cell, in one colour or in the cell's own."""

    def family(rng: random.Random, largest: int):
        colour = rng.randint(1, 9) if rng.random() < 0.7 else None

        def rule(g: Grid) -> Grid:
            new = {(i + di, j + dj): colour or g[i][j] for i, j in coloured(g) for di, dj in offsets}
            return painted(g, {cell: c for cell, c in new.items() if _at(g, *cell) == 0})

        return points(rng, largest, most=2), rule

    return family


def _at(g: Grid, i: int, j: int) -> int | None:
    return g[i][j] if 0 <= i < len(g) and 0 <= j < len(g[0]) else None


plus_around = _stamp(_BESIDE)
corners_around = _stamp([(-1, -1), (-1, 1), (1, -1), (1, 1)])
surround = _stamp(_AROUND)


def _ray(steps: list[tuple[int, int]]):
    """A family that extends every cell in the directions `steps`, up to the next coloured cell or the edge."""

    def family(rng: random.Random, largest: int):
        def along(g: Grid, i: int, j: int) -> Iterator[tuple[int, int]]:
            for di, dj in steps:
                cell = (i + di, j + dj)
                while _at(g, *cell) == 0:
                    yield cell
                    cell = (cell[0] + di, cell[1] + dj)

        def rule(g: Grid) -> Grid:
            return painted(g, {cell: g[i][j] for i, j in coloured(g) for cell in along(g, i, j)})

        return points(rng, largest), rule

    return family


ray_right = _ray([(0, 1)])
ray_both = _ray([(0, 1), (0, -1)])
ray_cross = _ray(_BESIDE)
ray_diagonal = _ray([(1, 1)])
ray_diagonals = _ray([(1, 1), (-1, -1), (1, -1), (-1, 1)])


def connect_in_rows(rng: random.Random, largest: int):
    """Two cells of one colour in a row are joined by a line, of their colour or of one for all."""
    colour = rng.choice([None, rng.randint(1, 9)])

    def rule(g: Grid) -> Grid:
        out: dict[tuple[int, int], int] = {}
        for i, row in enumerate(g):
            ends = [j for j, c in enumerate(row) if c]
            if len(ends) == 2 and row[ends[0]] == row[ends[1]]:
                out |= dict.fromkeys(((i, j) for j in range(ends[0] + 1, ends[1])), colour or row[ends[0]])
        return painted(g, out)

    # Each chosen row has two cells of one colour.
    height, width = (max(3, side) for side in sides(rng, largest))
    palette = rng.sample(range(1, 10), 3)

    def make() -> Grid:
        grid = ((0,) * width,) * height
        for i in rng.sample(range(height), rng.randint(1, max(1, height // 2))):
            ends = rng.sample(range(width), 2)
            grid = painted(grid, {(i, j): c for j, c in zip(ends, [rng.choice(palette)] * 2, strict=True)})
        return grid

    return make, rule


# Connected groups of cells.
def drop_single_cells(rng: random.Random, largest: int):
    make = same_shape_noise(rng, largest, density=rng.uniform(0.3, 0.6), colours=rng.randint(1, 2))
    return make, lambda g: painted(g, {cells[0]: 0 for cells in components(g) if len(cells) == 1})


def recolour_touching(rng: random.Random, largest: int):
    """Objects of two or more cells take a new colour."""
    new = rng.randint(1, 9)
    make = same_shape_noise(rng, largest, density=rng.uniform(0.25, 0.5), colours=1)
    return make, lambda g: painted(g, {cell: new for cells in components(g) if len(cells) > 1 for cell in cells})


def _largest(act: Callable[[Grid, list, int], Grid]):
    """A family whose rule is `act(grid, groups, colour)`, on grids with a single largest group."""

    def family(rng: random.Random, largest: int):
        colour = rng.randint(1, 9)
        plain = same_shape_noise(rng, max(3, largest), density=rng.uniform(0.25, 0.5), colours=rng.randint(1, 3))

        def clear(g: Grid) -> bool:
            sizes = [len(cells) for cells in components(g)]
            return len(sizes) > 1 and sizes[0] > sizes[1]

        return drawn_once(plain, clear), lambda g: act(g, components(g), colour)

    return family


keep_largest = _largest(lambda g, groups, _: painted(g, {cell: 0 for cells in groups[1:] for cell in cells}))
recolour_largest = _largest(lambda g, groups, colour: painted(g, dict.fromkeys(groups[0], colour)))
crop_largest = _largest(lambda g, groups, _: crop(g, groups[0]))


def crop_colour(rng: random.Random, largest: int):
    """The output is the bounding box of one colour, the same in all pairs."""
    colour = rng.randint(1, 9)
    make = same_shape_noise(rng, max(3, largest), density=rng.uniform(0.2, 0.6), colours=2, among=[colour])

    def cells(g: Grid):
        return [(i, j) for i, row in enumerate(g) for j, c in enumerate(row) if c == colour]

    return drawn_once(make, lambda g: bool(cells(g))), lambda g: crop(g, cells(g))


TRAINED = (
    fill_inside,
    connect_in_rows,
    drop_single_cells,
    recolour_touching,
    crop_colour,
)
NAMED = {
    "plus_around": plus_around,
    "corners_around": corners_around,
    "ray_right": ray_right,
    "ray_both": ray_both,
    "ray_cross": ray_cross,
    "ray_diagonal": ray_diagonal,
    "ray_diagonals": ray_diagonals,
    "keep_largest": keep_largest,
    "recolour_largest": recolour_largest,
    "crop_largest": crop_largest,
}
