"""Resizings of grids: there and back exactly, within 30 cells, and rules that hold stay rules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arc import encode
from harness.arc.augment import GEOMETRY, View, recolour
from harness.arc.examples import leave_one_out
from harness.arc.resize import KINDS, RESIZES, Resize, fits
from harness.arc.task import LARGEST, Pair, Task

SIDES = st.integers(1, 10)
GRIDS = st.tuples(SIDES, SIDES).flatmap(
    lambda sides: st.lists(
        st.lists(st.integers(0, 9), min_size=sides[1], max_size=sides[1]).map(tuple), min_size=sides[0],
        max_size=sides[0],
    ).map(tuple)
)  # fmt: skip
ALL = [resize for kind in RESIZES.values() for resize in kind]
SMALL = ((1, 2, 3), (4, 5, 6))


def test_every_kind_is_drawn_in_some_way():
    assert list(RESIZES) == list(KINDS)
    assert len(set(ALL)) == len(ALL) == 2 + 3 + 3 + 20


def test_resizings_by_hand():
    """Of 123/456: each cell 2 x 2; repeated beside and below; with its mirror image; in a frame of 7."""

    def resized(kind, *numbers):
        return encode.rows(Resize(kind, numbers).apply(SMALL))

    assert resized("scale", 2) == "112233\n112233\n445566\n445566"
    assert resized("tile", 1, 2) == "123123\n456456"
    assert resized("tile", 2, 1) == "123\n456\n123\n456"
    assert resized("mirror", 1, 2) == "123321\n456654"
    assert resized("mirror", 2, 1) == "123\n456\n456\n123"
    assert resized("mirror", 2, 2) == "123321\n456654\n456654\n123321"
    assert resized("pad", 1, 7) == "77777\n71237\n74567\n77777"


@settings(max_examples=150, deadline=None)
@given(GRIDS, st.sampled_from(ALL))
def test_every_resizing_goes_there_and_back(grid, resize):
    larger = resize.apply(grid)
    assert resize.invert(larger) == grid
    assert larger != grid
    assert fits([larger]) == (max(len(larger), len(larger[0])) <= LARGEST)


@settings(max_examples=150, deadline=None)
@given(GRIDS, st.sampled_from(ALL), st.data())
def test_what_is_no_resized_grid_has_no_inverse(grid, resize, data):
    """One cell more or less of another colour is no image of any grid, unless the inverse still leads there."""
    larger = resize.apply(grid)
    row, column = data.draw(st.integers(0, len(larger) - 1)), data.draw(st.integers(0, len(larger[0]) - 1))
    other = (larger[row][column] + 1) % 10
    changed = (*larger[:row], (*larger[row][:column], other, *larger[row][column + 1 :]), *larger[row + 1 :])
    for answer in (changed, larger[:-1], tuple(line[1:] for line in larger), grid):
        if answer and answer[0]:
            back = resize.invert(answer)
            assert back is None or resize.apply(back) == answer
    # A frame says nothing of what is within; all other kinds write each cell twice at least.
    if resize.kind != "pad":
        assert resize.invert(changed) is None


def test_answers_too_small_to_be_resized_are_none():
    assert [resize.invert(((5,),)) for resize in ALL] == [None] * len(ALL)


@settings(max_examples=100, deadline=None)
@given(GRIDS, st.sampled_from(ALL), st.integers(0, 2**32))
def test_a_resized_view_of_a_question_gives_its_answer_back(grid, resize, seed):
    """Turn, colours and size together; only what is no view's grid is None."""
    view = View(["rotate", "transpose", "flip_rows"][seed % 3], (3, 1, 2, 0, *range(4, 10)), None, resize)
    assert view.invert(view.apply(grid)) == grid
    task = Task("t", (Pair(grid, grid[::-1]), Pair(grid[::-1], grid)), (grid,))
    seen = view.of(task)
    assert seen.test_inputs == (view.apply(grid),)
    assert [view.invert(pair.output) for pair in seen.demonstrations] == [grid[::-1], grid]


# kind -> turns of the square that are the same before and after it, whatever the grid
KEEPS = {
    "scale": list(GEOMETRY),
    "pad": list(GEOMETRY),
    "tile": ["identity", "half_turn", "flip_rows", "flip_columns"],
    "mirror": ["identity"],
}


@settings(max_examples=150, deadline=None)
@given(GRIDS, st.sampled_from(ALL), st.data())
def test_a_rule_that_does_not_see_the_size_solves_the_resized_task_too(grid, resize, data):
    """Turns of scaled and framed grids, flips of tiled ones, and colours of all but the frame's own."""
    turn, _ = GEOMETRY[data.draw(st.sampled_from(KEEPS[resize.kind]))]
    assert turn(resize.apply(grid)) == resize.apply(turn(grid))
    colours = data.draw(st.permutations(range(10)))
    if resize.kind == "pad":
        width, colour = resize.numbers
        after = Resize("pad", (width, colours[colour]))
    else:
        after = resize
    assert recolour(resize.apply(grid), colours) == after.apply(recolour(grid, colours))


@settings(max_examples=60, deadline=None)
@given(st.lists(GRIDS, min_size=3, max_size=5), st.sampled_from(ALL))
def test_any_rule_solves_the_resized_task_once_it_is_resized(grids, resize):
    """Back, the rule, and there again: of every demonstration and of the question."""

    def rule(grid):
        return tuple(tuple(sorted(row)) for row in grid[::-1])

    def resized_rule(grid):
        return resize.apply(rule(resize.invert(grid)))

    task = Task("t", tuple(Pair(grid, rule(grid)) for grid in grids), (grids[0],))
    for example in leave_one_out(task):
        seen = example.in_view(View(resize=resize))
        for pair in (*seen.demonstrations, seen.question):
            assert resized_rule(pair.input) == pair.output
