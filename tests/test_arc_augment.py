"""Views of grids and tasks: each goes there and back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arc import augment, encode
from harness.arc.augment import GEOMETRY, SAME, View
from harness.arc.task import Pair, Task

GRIDS = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 9), min_size=width, max_size=width).map(tuple), min_size=1, max_size=30
    ).map(tuple)
)
SMALL = ((1, 2, 3), (4, 5, 6))


def test_the_eight_views_by_hand():
    """123/456 turned clockwise is 41/52/63, mirrored in the diagonal 14/25/36."""
    turned = {name: encode.rows(apply(SMALL)) for name, (apply, _) in GEOMETRY.items()}
    assert turned == {
        "identity": "123\n456",
        "rotate": "41\n52\n63",
        "half_turn": "654\n321",
        "rotate_back": "36\n25\n14",
        "flip_rows": "456\n123",
        "flip_columns": "321\n654",
        "transpose": "14\n25\n36",
        "anti_transpose": "63\n52\n41",
    }


@pytest.mark.parametrize("name", GEOMETRY)
@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_every_geometric_view_goes_there_and_back(name, grid):
    apply, invert = GEOMETRY[name]
    assert invert(apply(grid)) == grid
    assert apply(invert(grid)) == grid


@settings(max_examples=100, deadline=None)
@given(GRIDS, st.integers(0, 2**32))
def test_drawn_views_go_there_and_back(grid, seed):
    view = augment.draw(random.Random(seed), 3)
    assert view.invert(view.apply(grid)) == grid
    assert view.apply(view.invert(grid)) == grid


def test_colours_are_permuted_as_asked():
    rng = random.Random(0)
    drawn = [augment.draw(rng, 3).colours for _ in range(2000)]
    assert all(sorted(c) == list(range(10)) for c in drawn)
    kept = sum(c[0] == 0 for c in drawn) / 2000
    assert 0.88 < kept < 0.94  # 0.9, and a tenth of the rest by chance
    assert all(augment.draw(rng, 3, keep_background=1.0).colours[0] == 0 for _ in range(50))
    assert all(augment.draw(rng, 3, keep_colours=1.0).colours == SAME for _ in range(50))
    assert all(augment.draw(rng, 3, colours=False).colours == SAME for _ in range(50))
    assert {augment.draw(rng, 3, geometry=False).geometry for _ in range(50)} == {"identity"}
    assert {augment.draw(rng, 3, order=False).order for _ in range(50)} == {None}


def test_a_view_of_a_task_keeps_its_rule():
    """The rule "mirror left to right" is still that after any view that keeps left and right."""
    task = Task("p", (Pair(((1, 2),), ((2, 1),)), Pair(((3, 4),), ((4, 3),))), (((5, 6),),))
    seen = View("flip_columns", (0, 2, 1, *range(3, 10)), (1, 0)).of(task)
    assert seen.demonstrations == (Pair(((4, 3),), ((3, 4),)), Pair(((1, 2),), ((2, 1),)))
    assert seen.test_inputs == (((6, 5),),)


def test_views_to_predict_in_are_all_different_and_begin_plain():
    drawn = augment.views(20, 3)
    assert drawn[0] == View()
    assert {view.geometry for view in drawn[:8]} == set(GEOMETRY)
    assert len(set(drawn)) == 20
    assert drawn == augment.views(20, 3)
