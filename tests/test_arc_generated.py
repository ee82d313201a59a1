"""Families of generated tasks, each explained by its rule or computed another way."""

import random
from collections import Counter
from itertools import groupby

import numpy as np
import pytest

from harness.arc import sources
from harness.arc.augment import GEOMETRY, View
from harness.arc.generated import families

ALL = {**families.TRAINED, **families.HELD_OUT, "chained": families.chained}


@pytest.mark.parametrize("largest", [3, 6, 10])
@pytest.mark.parametrize("name", ALL)
def test_every_family_makes_tasks_that_its_rule_explains(name, largest):
    """Twenty tasks each (fifty of the usual size): proper grids of at most 30 a side, at least one pair changed, the
    same for the same seed."""
    for seed in range(50 if largest == 6 else 20):
        task, output = families.task(ALL[name], random.Random(seed), largest)
        assert (task, output) == families.task(ALL[name], random.Random(seed), largest)
        assert len(task.demonstrations) == 4
        tested = (task.test_inputs[0], output)
        assert any(a != b for a, b in (*((p.input, p.output) for p in task.demonstrations), tested))
        for grid in (*(g for p in task.demonstrations for g in (p.input, p.output)), *tested):
            assert sources.grid_of([list(row) for row in grid], name) == grid


def test_held_out_families_are_not_trained():
    assert not set(families.HELD_OUT) & set(families.TRAINED)
    assert not set(families.HELD_OUT.values()) & {*families.TRAINED.values(), *families._SAME_SIZE}
    held_out = ["border", "swap_halves", "stretch", "turn_every_other_row", "hollow", "surround"]
    assert list(families.HELD_OUT) == held_out


def _tasks(name, count=60, largest=7):
    """`count` tasks of a family, each as all of its inputs with their outputs."""
    for seed in range(count):
        task, output = families.task(ALL[name], random.Random(seed), largest)
        yield [(p.input, p.output) for p in task.demonstrations] + [(task.test_inputs[0], output)]


def _explained(name, rules, count=60):
    """Whether each task follows one of `rules` throughout; returns how often each rule was the one."""
    used = Counter()
    for pairs in _tasks(name, count):
        fitting = [i for i, rule in enumerate(rules) if all(rule(a) == b for a, b in pairs)]
        assert fitting, (name, pairs)
        used[fitting[0]] += 1
    return used


def _array(grid):
    return np.array(grid)


def _grid(array):
    return tuple(tuple(map(int, row)) for row in array)


def test_sorted_rows_by_another_way():
    assert _explained("sort_rows", [lambda g: _grid(np.sort(_array(g), 1))])


def test_mirror_pictures_are_made_by_turned_tiles():
    """Every output is a mosaic of the input in views, the same views in each pair; the mirror picture beside the grid
    is among the draws."""
    mirrored = 0
    for pairs in _tasks("tile_turned", 200):
        places, seen = set(), []
        for given, output in pairs:
            side = len(given)
            tall, wide = len(output) // side, len(output[0]) // side
            assert (tall * side, wide * side) == (len(output), len(output[0])) and tall * wide > 1
            turns = []
            for i in range(0, tall * side, side):
                for j in range(0, wide * side, side):
                    tile = tuple(row[j : j + side] for row in output[i : i + side])
                    turns.append({name for name, (turn, _) in GEOMETRY.items() if turn(given) == tile})
            places.add((tall, wide))
            seen.append(turns)
        assert len(places) == 1
        assert all(set.intersection(*same_place) for same_place in zip(*seen, strict=True))
        mirrored += all(output == tuple(row + row[::-1] for row in given) for given, output in pairs)
    assert mirrored


def test_logic_by_another_way():
    """Two halves with or without a line between; each output is one truth table of four entries, all six are drawn."""
    tables = Counter()
    for pairs in _tasks("logic", 300):
        seen = {}
        (colour,) = {c for _, output in pairs for row in output for c in row} - {0} or {0}
        for given, output in pairs:
            width = len(output[0])
            assert len(given) == len(output) and len(given[0]) in (2 * width, 2 * width + 1)
            left, right, truth = _array(given)[:, :width] > 0, _array(given)[:, -width:] > 0, _array(output) == colour
            for a, b, c in zip(left.flat, right.flat, truth.flat, strict=True):
                assert seen.setdefault((bool(a), bool(b)), bool(c)) == bool(c)
        if len(seen) == 4:
            tables[tuple(seen[key] for key in sorted(seen))] += 1
    by_name = {
        "and": (False, False, False, True),
        "or": (False, True, True, True),
        "xor": (False, True, True, False),
        "nor": (True, False, False, False),
        "only_left": (False, False, True, False),
        "nand": (True, True, True, False),
    }
    assert set(tables) == set(by_name.values())


def test_filled_insides_by_another_way():
    """Flooded from a frame of background around: what stays dry, and was background, is filled with one colour."""

    def dry(grid):
        wide = np.pad(_array(grid), 1)
        wet = np.zeros_like(wide, bool)
        wet[0, 0] = True
        while True:
            grown = wet.copy()
            for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
                grown |= np.roll(wet, shift, axis)
            grown &= wide == 0
            if (grown == wet).all():
                return (~wet & (wide == 0))[1:-1, 1:-1]
            wet = grown

    filled = 0
    for pairs in _tasks("fill_inside"):
        colours = set()
        for given, output in pairs:
            inside = dry(given)
            assert (_array(output)[~inside] == _array(given)[~inside]).all()
            colours |= set(_array(output)[inside].tolist())
            filled += inside.sum()
        assert len(colours) == 1 and 0 not in colours
    assert filled > 100


def test_scaling_down_is_the_way_back_from_repeating():
    for pairs in _tasks("scale_down"):
        (by,) = {len(given) // len(output) for given, output in pairs}
        assert by in (2, 3)
        for given, output in pairs:
            assert (np.kron(_array(output), np.ones((by, by), int)) == _array(given)).all()


def test_scaling_up_is_a_kronecker_product():
    assert _explained("scale_up", [lambda g, n=n: _grid(np.kron(_array(g), np.ones((n, n), int))) for n in (2, 3)])


def _rays(directions):
    """Along `directions` over background from each coloured cell; of two that cross the lower, then the right, wins."""

    def rule(grid):
        out = _array(grid).copy()
        for i, j in np.argwhere(_array(grid)):
            for di, dj in directions:
                for n in range(1, 31):
                    y, x = i + n * di, j + n * dj
                    if not (0 <= y < len(grid) and 0 <= x < len(grid[0])) or grid[y][x]:
                        break
                    out[y, x] = grid[i][j]
        return _grid(out)

    return rule


@pytest.mark.parametrize(
    ("name", "directions"),
    [
        ("ray_cross", [(-1, 0), (1, 0), (0, -1), (0, 1)]),
        ("ray_right", [(0, 1)]),
        ("ray_both", [(0, 1), (0, -1)]),
        ("ray_diagonal", [(1, 1)]),
        ("ray_diagonals", [(1, 1), (-1, -1), (1, -1), (-1, 1)]),
    ],
)
def test_rays_by_another_way(name, directions):
    assert _explained(name, [_rays(directions)])


def test_symmetry_is_completed():
    """Each output is its own mirror picture, and agrees with the input wherever that shows a colour."""
    whole = 0
    for pairs in _tasks("make_symmetric"):
        for given, output in pairs:
            assert output == tuple(row[::-1] for row in output)
            assert all(
                c in (0, o) for row, out in zip(given, output, strict=True) for c, o in zip(row, out, strict=True)
            )
            whole += given == output
    assert whole < 60


def test_dropped_repeats_by_another_way():
    """itertools.groupby over rows, then over columns: nothing that repeats the one before is left."""

    def rule(grid):
        rows = [row for row, _ in groupby(grid)]
        return tuple(zip(*(column for column, _ in groupby(zip(*rows, strict=True))), strict=True))

    assert _explained("drop_repeats", [rule])


def test_a_legend_is_obeyed():
    def rule(grid):
        (old, new, *rest), *body = grid
        assert not any(rest) and 0 not in (old, new) and old != new
        return (grid[0], *(tuple({old: new}.get(c, c) for c in row) for row in body))

    assert _explained("legend", [rule])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("fall_down", lambda a: np.take_along_axis(a, np.argsort(a > 0, 0, kind="stable"), 0)),
        ("stretch", lambda a: np.repeat(a, 2, 0)),
        ("lines_through", lambda a: np.array([np.full(len(r), r[r > 0][0] if r.any() else 0) for r in a])),
        ("crop_to_box", lambda a: a[np.ix_(*(range(np.flatnonzero(a.any(k)).min(), np.flatnonzero(a.any(k)).max() + 1)
                                             for k in (1, 0)))]),
    ],
)  # fmt: skip
def test_more_rules_by_another_way(name, rule):
    assert _explained(name, [lambda g: _grid(rule(_array(g)))])


def test_a_surrounded_cell_has_all_eight_neighbours():
    """Held out: of each coloured cell all eight neighbours that were background take its colour, or one for all."""
    for pairs in _tasks("surround"):
        for given, output in pairs:
            a, b = _array(given), _array(output)
            assert (b[a > 0] == a[a > 0]).all()
            wide, near = np.pad(a > 0, 1), np.zeros_like(a, bool)
            for i in range(3):
                for j in range(3):
                    near |= wide[i : i + len(a), j : j + len(a[0])]
            assert ((b > 0) == near).all()


def test_hollowed_objects_by_hand():
    """Held out. Of a block of 4 x 4 its outline stays; a cell whose neighbours are of another colour stays too."""
    rng = random.Random(0)
    _, rule = families.HELD_OUT["hollow"](rng, 6)
    block = ((2,) * 4,) * 4
    assert rule(block) == ((2, 2, 2, 2), (2, 0, 0, 2), (2, 0, 0, 2), (2, 2, 2, 2))
    assert rule(((2, 2, 3), (2, 2, 3), (2, 2, 3))) == ((2, 2, 3), (2, 2, 3), (2, 2, 3))


def test_cropping_by_hand():
    assert families.bounding_box(((0, 0, 0), (0, 1, 0), (0, 0, 2), (0, 0, 0))) == ((1, 0), (0, 2))


def test_a_view_of_a_made_task_is_one_too():
    task, output = families.task(families.TRAINED["roll_rows"], random.Random(0), 5)
    view = View("transpose")
    assert view.invert(view.of(task).test_inputs[0]) == task.test_inputs[0]
    assert view.invert(view.apply(output)) == output
