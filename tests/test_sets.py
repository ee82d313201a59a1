import random
from itertools import islice

from harness.arc import augment, examples, sources
from harness.arc.task import Pair, Task

A, B, C = (Pair(((i,),), ((i + 1,),)) for i in (1, 3, 5))
PUZZLE = Task("p", (A, B, C), (((7,),),))


def test_leave_one_out_by_hand():
    found = examples.leave_one_out(PUZZLE)
    assert [(e.pairs, e.input, e.output) for e in found] == [
        ((B, C), A.input, A.output),
        ((A, C), B.input, B.output),
        ((A, B), C.input, C.output),
    ]
    assert examples.leave_one_out(Task("p", (A,), (((7,),),))) == []


def test_leave_two_out_by_hand():
    found = examples.leave_two_out(PUZZLE)
    assert [(e.pairs, e.input) for e in found] == [
        ((C,), A.input),
        ((C,), B.input),
        ((B,), A.input),
        ((B,), C.input),
        ((A,), B.input),
        ((A,), C.input),
    ]
    assert len(examples.SETS["n-2"](PUZZLE)) == 3 + 6
    assert examples.leave_two_out(Task("p", (A, B), ())) == []


def test_the_numbers_on_the_real_set():
    """FACTS of the published sets: 1363 leave-one-out sequences on the evaluation tasks, 1302 on the training ones."""
    for name, count in (("arc1-evaluation", 1363), ("arc1-training", 1302)):
        puzzles, _ = sources.load(name)
        assert sum(len(examples.leave_one_out(p)) for p in puzzles) == count


def test_no_test_output_reaches_an_example():
    """Over all evaluation tasks: every grid of every example, plain and drawn, is a demonstration of its own puzzle."""
    rng = random.Random(0)
    puzzles, _ = sources.load("arc1-evaluation")
    for puzzle in puzzles:
        shown = {grid for pair in puzzle.pairs for grid in (pair.input, pair.output)}
        made = examples.SETS["n-2"](puzzle) + [e for e in [examples.drawn(puzzle, rng)] if e]
        for e in made:
            assert {e.input, e.output, *(g for pair in e.pairs for g in (pair.input, pair.output))} <= shown
            assert Pair(e.input, e.output) not in e.pairs or puzzle.pairs.count(Pair(e.input, e.output)) > 1


def test_an_example_in_a_view_keeps_question_and_answer_together():
    view = augment.View("rotate", (0, 2, 1, *range(3, 10)), (1, 0))
    seen = examples.leave_one_out(PUZZLE)[0].seen(view)
    assert seen.pairs == tuple(Pair(view.apply(p.input), view.apply(p.output)) for p in (C, B))
    assert (view.invert(seen.input), view.invert(seen.output)) == (A.input, A.output)


def test_shuffled_gives_each_once_before_any_again():
    made = examples.leave_one_out(PUZZLE)
    found = list(islice(examples.shuffled(made, random.Random(0)), 9))
    for start in (0, 3, 6):
        assert sorted(e.input for e in found[start : start + 3]) == sorted(e.input for e in made)
    assert list(examples.shuffled([], random.Random(0))) == []
