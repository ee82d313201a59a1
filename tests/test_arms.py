"""Questions drawn on the fly; what an arm's examples are made of, for every arm, on real tasks in any view."""

import random
from collections import Counter
from itertools import islice, permutations

import pytest
from conftest import made_puzzles

from harness.arc import augment, examples, sources
from harness.arc.arms import ARMS, Arm
from harness.arc.examples import ON_THE_FLY
from harness.arc.task import Pair, Task, subset, within

PLAIN = Arm("on the fly", ON_THE_FLY)  # without turns and other colours, so that grids can be recognised


def _first(arm, puzzles, count, seed=0):
    return list(islice(arm.stream(puzzles, seed), count))


def test_on_the_fly_every_demonstration_is_asked_and_only_demonstrations_are():
    puzzles, _ = made_puzzles(3, pairs=4)
    pairs = {puzzle.id: puzzle.pairs for puzzle in puzzles}
    asked = {puzzle.id: Counter() for puzzle in puzzles}
    for e in _first(PLAIN, puzzles, 600):
        question = Pair(e.input, e.output)
        assert question in pairs[e.id]
        assert sorted(map(repr, (*e.pairs, question))) == sorted(map(repr, pairs[e.id]))  # each once, and no other
        asked[e.id][question] += 1
    for name, counts in asked.items():
        assert set(counts) == set(pairs[name])
        assert sum(counts.values()) == 200  # no puzzle comes again before all have come
        assert min(counts.values()) > 25  # 50 expected of each, with a deviation of 6


def test_on_the_fly_the_others_are_shown_in_every_order():
    (puzzle,), _ = made_puzzles(1)
    orders = Counter((puzzle.pairs.index(Pair(e.input, e.output)), *map(puzzle.pairs.index, e.pairs))
                     for e in _first(PLAIN, [puzzle], 300))  # fmt: skip
    assert len(orders) == 6 and min(orders.values()) > 20


def test_on_the_fly_a_puzzle_of_one_demonstration_is_left_out():
    puzzles, _ = made_puzzles(2)
    lone = Task("lone", puzzles[0].pairs[:1], puzzles[0].test_inputs)
    assert {e.id for e in _first(PLAIN, [lone, *puzzles], 50)} == {"t0", "t1"}
    assert _first(PLAIN, [lone], 50) == []
    assert examples.drawn(lone, random.Random(0)) is None


@pytest.mark.parametrize("name", [name for name in ARMS if name != "baseline"])
def test_streams_begin_again_the_same(name):
    """What a stopped arm relies on: the n-th example is the same however often one begins."""
    puzzles, _ = made_puzzles(4)
    whole = _first(ARMS[name], puzzles, 90)
    assert _first(ARMS[name], puzzles, 90) == whole
    stream = ARMS[name].stream(puzzles, 0)
    for _ in range(37):
        next(stream)
    assert list(islice(stream, 53)) == whole[37:]
    assert _first(ARMS[name], puzzles, 90, seed=1) != whole


def _canonical(*grids):
    """The grids as they are in any view: colours numbered as they come, of the eight turns the least."""
    found = []
    for turn, _ in augment.GEOMETRY.values():
        seen: dict[int, int] = {}
        turned = [turn(grid) for grid in grids]
        found.append(tuple(tuple(tuple(seen.setdefault(c, len(seen)) for c in row) for row in g) for g in turned))
    return min(found)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "baseline"])
def test_every_example_is_made_of_its_own_demonstrations_in_one_view(name):
    """On sixty real tasks: question, answer and what is shown go back to demonstrations; the test is never among them,
    nor the question's own output among what is shown. One view turns and colours the whole example alike."""
    puzzles, solutions = sources.load("arc1-evaluation")
    puzzles = subset(within(puzzles, 12), 60)
    demonstrations = {p.id: Counter(_canonical(pair.input, pair.output) for pair in p.pairs) for p in puzzles}
    tests = {p.id: {_canonical(g, s) for g, s in zip(p.test_inputs, solutions[p.id], strict=True)} for p in puzzles}
    for e in _first(ARMS[name], puzzles, 300):
        pairs = [_canonical(pair.input, pair.output) for pair in (*e.pairs, Pair(e.input, e.output))]
        assert not Counter(pairs) - demonstrations[e.id]
        assert not tests[e.id] & set(pairs) or tests[e.id] & set(demonstrations[e.id])
        (puzzle,) = (p for p in puzzles if p.id == e.id)
        left_out = len(puzzle.pairs) - len(e.pairs)
        assert left_out == 1 or (name == "n-2" and left_out == 2)
    # With two demonstrations the whole example is one of two, joined grid by grid: so it is in one view.
    two = [puzzle for puzzle in puzzles if len(puzzle.pairs) == 2]
    joint = {p.id: {_canonical(a.input, a.output, b.input, b.output) for a, b in permutations(p.pairs)} for p in two}
    for e in _first(ARMS[name], two, 100):
        (shown,) = e.pairs
        assert _canonical(shown.input, shown.output, e.input, e.output) in joint[e.id]
