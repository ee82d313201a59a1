import random
from itertools import islice

from harness.arc import augment, examples, sources
from harness.arc.task import Pair, Task

A, B, C = (Pair(((i,),), ((i + 1,),)) for i in (1, 3, 5))
TASK = Task("p", (A, B, C), (((7,),),))


def test_leave_one_out_by_hand():
    made = examples.leave_one_out(TASK)
    assert [(e.demonstrations, e.test_input, e.output) for e in made] == [
        ((B, C), A.input, A.output),
        ((A, C), B.input, B.output),
        ((A, B), C.input, C.output),
    ]
    assert examples.leave_one_out(Task("p", (A,), (((7,),),))) == []


def test_leave_two_out_by_hand():
    made = examples.leave_two_out(TASK)
    assert [(e.demonstrations, e.test_input) for e in made] == [
        ((C,), A.input),
        ((C,), B.input),
        ((B,), A.input),
        ((B,), C.input),
        ((A,), B.input),
        ((A,), C.input),
    ]
    assert len(examples.SETS["n-2"](TASK)) == 3 + 6
    assert examples.leave_two_out(Task("p", (A, B), ())) == []


def test_the_numbers_on_the_real_set():
    """FACTS of the published sets: 1363 leave-one-out sequences on the evaluation tasks, 1302 on the training ones."""
    for name, count in (("arc1-evaluation", 1363), ("arc1-training", 1302)):
        tasks, _ = sources.load(name)
        assert sum(len(examples.leave_one_out(p)) for p in tasks) == count


def test_no_test_output_reaches_an_example():
    """Over all evaluation tasks: every grid of every example, plain and drawn, is a demonstration of its own task."""
    rng = random.Random(0)
    tasks, _ = sources.load("arc1-evaluation")
    for task in tasks:
        shown = {grid for pair in task.demonstrations for grid in (pair.input, pair.output)}
        made = examples.SETS["n-2"](task) + (
            [examples.draw_question(task, rng)] if len(task.demonstrations) > 1 else []
        )
        for e in made:
            question = Pair(e.test_input, e.output)
            assert {grid for pair in (*e.demonstrations, question) for grid in (pair.input, pair.output)} <= shown
            assert question not in e.demonstrations or task.demonstrations.count(question) > 1


def test_an_example_in_a_view_keeps_question_and_answer_together():
    view = augment.View("rotate", (0, 2, 1, *range(3, 10)), (1, 0))
    seen = examples.leave_one_out(TASK)[0].in_view(view)
    assert seen.demonstrations == tuple(Pair(view.apply(p.input), view.apply(p.output)) for p in (C, B))
    assert (view.invert(seen.test_input), view.invert(seen.output)) == (A.input, A.output)


def test_shuffled_gives_each_once_before_any_again():
    made = examples.leave_one_out(TASK)
    taken = list(islice(examples.shuffled(made, random.Random(0)), 9))
    for start in (0, 3, 6):
        assert sorted(e.test_input for e in taken[start : start + 3]) == sorted(e.test_input for e in made)
    assert list(examples.shuffled([], random.Random(0))) == []
