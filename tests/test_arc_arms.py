"""Questions drawn on the fly; what an arm's examples are made of, for every arm, on real tasks in any view."""

from collections import Counter
from itertools import islice, permutations

import pytest
from helpers.tasks import made_tasks

from harness.arc import augment, sources
from harness.arc.arms import ARMS, Arm
from harness.arc.examples import ON_THE_FLY
from harness.arc.resize import RESIZES
from harness.arc.task import Pair, Task, subset, within

PLAIN = Arm("on the fly", ON_THE_FLY)  # without turns and other colours, so that grids can be recognised


def _first(arm, tasks, count, seed=0):
    return list(islice(arm.stream(tasks, seed), count))


def test_on_the_fly_every_demonstration_is_asked_and_only_demonstrations_are():
    tasks, _ = made_tasks(3, shown=4)
    pairs = {task.id: task.demonstrations for task in tasks}
    questions = {task.id: Counter() for task in tasks}
    for e in _first(PLAIN, tasks, 600):
        question = Pair(e.test_input, e.output)
        assert question in pairs[e.id]
        whole = sorted(map(repr, pairs[e.id]))  # each once, and no other
        assert sorted(map(repr, (*e.demonstrations, question))) == whole
        questions[e.id][question] += 1
    for name, counts in questions.items():
        assert set(counts) == set(pairs[name])
        assert sum(counts.values()) == 200  # no task comes again before all have come
        assert min(counts.values()) > 25  # 50 expected of each, with a deviation of 6


def test_on_the_fly_the_others_are_shown_in_every_order():
    (task,), _ = made_tasks(1)
    place = task.demonstrations.index
    orders = Counter((place(Pair(e.test_input, e.output)), *map(place, e.demonstrations))
                     for e in _first(PLAIN, [task], 300))  # fmt: skip
    assert len(orders) == 6 and min(orders.values()) > 20


def test_on_the_fly_a_task_of_one_demonstration_is_left_out():
    tasks, _ = made_tasks(2)
    lone = Task("lone", tasks[0].demonstrations[:1], tasks[0].test_inputs)
    assert {e.id for e in _first(PLAIN, [lone, *tasks], 50)} == {"t0", "t1"}
    assert _first(PLAIN, [lone], 50) == []


@pytest.mark.parametrize("name", [name for name in ARMS if name != "baseline"])
def test_streams_begin_again_the_same(name):
    """What a stopped arm relies on: the n-th example is the same however often one begins."""
    tasks, _ = made_tasks(4)
    whole = _first(ARMS[name], tasks, 90)
    assert _first(ARMS[name], tasks, 90) == whole
    stream = ARMS[name].stream(tasks, 0)
    for _ in range(37):
        next(stream)
    assert list(islice(stream, 53)) == whole[37:]
    assert _first(ARMS[name], tasks, 90, seed=1) != whole


def _canonical(*grids):
    """The grids as they are in any view: colours numbered as they come, of the eight turns the least."""
    variants = []
    for turn, _ in augment.GEOMETRY.values():
        seen: dict[int, int] = {}
        turned = [turn(grid) for grid in grids]
        variants.append(tuple(tuple(tuple(seen.setdefault(c, len(seen)) for c in row) for row in g) for g in turned))
    return min(variants)


@pytest.mark.parametrize("name", [arm.name for arm in ARMS.values() if arm.examples and not arm.mixture])
def test_every_example_is_made_of_its_own_demonstrations_in_one_view(name):
    """On sixty real tasks: question, answer and what is shown go back to demonstrations; the test is never among them,
    nor the question's own output among what is shown. One view turns and colours the whole example alike."""
    tasks, solutions = sources.load("arc1-evaluation")
    tasks = subset(within(tasks, 12), 60)
    demonstrations = {p.id: Counter(_canonical(pair.input, pair.output) for pair in p.demonstrations) for p in tasks}
    tests = {p.id: {_canonical(g, s) for g, s in zip(p.test_inputs, solutions[p.id], strict=True)} for p in tasks}
    for e in _first(ARMS[name], tasks, 300):
        pairs = [_canonical(pair.input, pair.output) for pair in (*e.demonstrations, Pair(e.test_input, e.output))]
        assert not Counter(pairs) - demonstrations[e.id]
        assert not tests[e.id] & set(pairs) or tests[e.id] & set(demonstrations[e.id])
        (task,) = (p for p in tasks if p.id == e.id)
        left_out = len(task.demonstrations) - len(e.demonstrations)
        assert left_out == 1 or (name == "n-2" and left_out == 2)
    # With two demonstrations the whole example is one of two, joined grid by grid: so it is in one view.
    two = [task for task in tasks if len(task.demonstrations) == 2]
    joint = {
        p.id: {_canonical(a.input, a.output, b.input, b.output) for a, b in permutations(p.demonstrations)} for p in two
    }
    for e in _first(ARMS[name], two, 100):
        (shown,) = e.demonstrations
        assert _canonical(shown.input, shown.output, e.test_input, e.output) in joint[e.id]


@pytest.mark.parametrize("name", [arm.name for arm in ARMS.values() if arm.mixture and arm.name != "+ combine"])
def test_every_changed_example_goes_back_to_its_own_demonstrations(name):
    """On forty real tasks: one resizing or swapped sides, undone for all grids alike, and all pairs are demonstrations.
    Combined ones, of which a mixture has a twelfth, have two tasks' grids and no such way back."""
    tasks = subset(within(sources.load("arc1-evaluation")[0], 8), 40)
    demonstrations = {p.id: Counter(_canonical(pair.input, pair.output) for pair in p.demonstrations) for p in tasks}
    ways = [None, *(resize for kind in RESIZES.values() for resize in kind)]
    combined = 0
    for e in _first(ARMS[name], tasks, 100):
        for way, swap in ((way, swap) for swap in (False, True) for way in ways):
            grids = [way.invert(grid) if way else grid for grid in e.grids]
            if None in grids:
                continue
            pairs = [grids[i : i + 2][:: -1 if swap else 1] for i in range(0, len(grids), 2)]
            if not Counter(_canonical(*pair) for pair in pairs) - demonstrations[e.id]:
                break
        else:
            combined += 1
    assert combined == 0 if name != "mixture" else 0 < combined < 25
