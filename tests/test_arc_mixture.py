"""Changes of training examples: all grids of one example alike, within 30 cells, the same for the same seed."""

import random
from collections import Counter
from itertools import islice

import pytest
from helpers.tasks import made_tasks, random_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arc import mixture, sources
from harness.arc.arms import ARMS
from harness.arc.augment import GEOMETRY
from harness.arc.examples import Example, leave_one_out
from harness.arc.mixture import CHANGES, PLAIN, beside
from harness.arc.resize import RESIZES
from harness.arc.task import LARGEST, Pair, Task

RULES = [apply for apply, _ in GEOMETRY.values()]
SEEDS = st.integers(0, 2**32)


def examples(seed, count=4, largest=LARGEST):
    """Leave-one-out examples of tasks of a turn each, with grids of any sides to `largest`."""
    rng, made = random.Random(seed), []
    for n in range(count):
        rule, most = rng.choice(RULES), rng.randint(1, largest)
        grids = [random_grid(rng, rng.randint(1, most), rng.randint(1, most)) for _ in range(rng.randint(2, 5))]
        made += leave_one_out(Task(f"t{n}", tuple(Pair(g, rule(g)) for g in grids), ()))
    return made


@pytest.mark.parametrize("name", CHANGES)
@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_changed_example_is_within_the_limit_and_the_same_for_a_seed(name, seed):
    pool = examples(seed)
    example = pool[seed % len(pool)]
    made = CHANGES[name](example, pool, random.Random(seed))
    assert made == CHANGES[name](example, pool, random.Random(seed))
    assert made.id == example.id
    assert all(1 <= len(grid) <= LARGEST and 1 <= len(grid[0]) <= LARGEST for grid in made.grids)
    assert 1 <= len(made.demonstrations) <= len(example.demonstrations)


@pytest.mark.parametrize("kind", RESIZES)
@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_demonstrations_and_question_are_resized_alike(kind, seed):
    """One and the same resizing has an inverse for every grid, and gives the example back."""
    example = examples(seed, 1, largest=14)[0]
    made = mixture.resized(kind, example, [], random.Random(seed))
    back = [[resize.invert(grid) for grid in made.grids] for resize in RESIZES[kind]]
    assert example.grids in back


def test_what_has_no_room_stays_as_it_is_and_what_has_some_is_resized_by_less():
    wide, middle = random_grid(random.Random(0), 2, 30), random_grid(random.Random(1), 11, 15)
    for kind in ("scale", "pad"):
        example = Example("t", (Pair(wide, wide),), wide, wide)
        assert mixture.resized(kind, example, [], random.Random(0)) == example
    example = Example("t", (Pair(middle, wide[:1]),), middle, middle)
    # Twice as wide is 60 for the output, so only what goes below is left.
    for seed in range(20):
        made = mixture.resized("tile", example, [], random.Random(seed))
        assert {(len(grid), len(grid[0])) for grid in made.grids} == {(22, 15), (2, 30)}


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_sides_swapped_twice_are_the_example_and_the_rules_inverse_solves_it(seed):
    rng = random.Random(seed)
    apply, invert = rng.choice(list(GEOMETRY.values()))
    task = Task("t", tuple(Pair(g, apply(g)) for g in (random_grid(rng, 3, 4) for _ in range(3))), ())
    for example in leave_one_out(task):
        made = mixture.swapped(example, [], rng)
        assert mixture.swapped(made, [], rng) == example
        for pair in (*made.demonstrations, made.question):
            assert invert(pair.input) == pair.output


def test_beside_by_hand():
    """12/34 and 5: 125/340, for the lower one is filled up with background."""
    assert beside(((1, 2), (3, 4)), ((5,),)) == ((1, 2, 5), (3, 4, 0))
    assert beside(((5,),), ((1, 2), (3, 4))) == ((5, 1, 2), (0, 3, 4))


def test_two_tasks_are_combined_pair_by_pair_and_both_rules_solve_it():
    """Grids of 2 x 3 turned upside down beside ones of 2 x 3 mirrored: each half by its own rule, the question too."""
    first, _ = made_tasks(1)
    second = [Task("other", tuple(Pair(p.input, tuple(r[::-1] for r in p.input)) for p in first[0].demonstrations), ())]
    pool = [example for task in (*first, *second) for example in leave_one_out(task)]
    for seed in range(20):
        made = mixture.combined(pool[0], pool, random.Random(seed))
        assert len(made.demonstrations) == 2
        for pair in (*made.demonstrations, made.question):
            left, right = tuple(row[:3] for row in pair.input), tuple(row[3:] for row in pair.input)
            assert pair.output == beside(left[::-1], tuple(row[::-1] for row in right))
        assert tuple(row[:3] for row in made.test_input) == pool[0].test_input
        # The answer is not among what is shown.
        assert made.question not in made.demonstrations


def test_a_lone_task_is_combined_with_itself_in_another_order():
    (task,), _ = made_tasks(1, shown=3)
    pool = leave_one_out(task)
    made = mixture.combined(pool[0], pool, random.Random(0))
    b, c = pool[0].demonstrations
    assert [pair.input for pair in made.demonstrations] == [beside(b.input, c.input), beside(c.input, b.input)]
    assert made.test_input == beside(pool[0].test_input, pool[0].test_input)


@pytest.mark.parametrize("name", ["+ combine", "mixture"])
def test_one_task_alone_is_combined_with_the_tasks_beside_it(name):
    """With an adapter per task: outputs of 2 x 2 beside ones of 3 x 3 have three rows and five columns, or turned."""
    one, other = (
        Task(str(size), (Pair(((size,) * size,) * size, ((size,) * size,) * size),) * 3, ()) for size in (2, 3)
    )
    stream = ARMS[name].stream([one], 0, [one, other])
    sizes = {(len(example.output), len(example.output[0])) for example in islice(stream, 200)}
    assert {(3, 5), (5, 3)} <= sizes and (2, 2) in sizes
    assert any(len(example.output) * len(example.output[0]) == 15 for example in ARMS[name].pool([one], [one, other]))
    assert all(example.id == "2" for example in islice(stream, 50))


def test_a_partner_that_fits_is_looked_for():
    """Of eight others at most one that stays within 30 cells is taken; without one the example stays."""
    rng = random.Random(0)
    wide, narrow = random_grid(rng, 2, 20), random_grid(rng, 2, 3)
    example = Example("t", (Pair(wide, wide),), wide, wide)
    large = [Example(f"l{n}", (Pair(wide, wide),), wide, wide) for n in range(6)]
    small = Example("s", (Pair(narrow, narrow),), narrow, narrow)
    for seed in range(10):
        assert mixture.combined(example, large, random.Random(seed)) == example
        made = mixture.combined(example, [*large, small], random.Random(seed))
        assert made.test_input == beside(wide, narrow)


def test_a_mixture_draws_by_its_weights():
    """3000 draws of 3 : 1 : 2; a deviation of 27 at most, so five of them are 137."""
    (task,), _ = made_tasks(1)
    pool, rng = leave_one_out(task), random.Random(0)
    weights = ((PLAIN, 3), ("tile", 1), ("swap sides", 2))
    swapped = mixture.swapped(pool[0], pool, rng)
    made = [mixture.changed(pool[0], weights, pool, rng) for _ in range(3000)]
    counts = Counter("plain" if e == pool[0] else "swap" if e == swapped else "tile" for e in made)
    assert abs(counts["plain"] - 1500) < 137 and abs(counts["swap"] - 1000) < 137 and abs(counts["tile"] - 500) < 137


MIXED = [arm for arm in ARMS.values() if arm.mixture]


def _first(arm, tasks, count):
    stream = arm.stream(tasks, 0)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("arm", MIXED, ids=lambda arm: arm.name)
def test_no_grid_of_an_arm_is_beyond_the_limit_on_real_tasks(arm):
    """Forty evaluation tasks, many of full size."""
    tasks = sources.load("arc1-evaluation")[0][:40]
    grids = [grid for example in _first(arm, tasks, 150) for grid in example.grids]
    assert max(len(grid) for grid in grids) <= LARGEST and max(len(grid[0]) for grid in grids) <= LARGEST


@pytest.mark.parametrize("arm", [arm for arm in MIXED if arm.name != "+ swap sides"], ids=lambda arm: arm.name)
def test_an_arm_changes_half_of_its_examples(arm):
    """Of 400 grids of 2 x 3: 200 with a deviation of 10. In "mixture" a twelfth more keep their size, sides swapped."""
    tasks, _ = made_tasks(5)
    plain = sum({(len(g), len(g[0])) for g in e.grids} <= {(2, 3), (3, 2)} for e in _first(arm, tasks, 400))
    assert abs(plain - (200 + 400 / 12 * (arm.name == "mixture"))) < 50


def test_the_pool_is_as_long_as_the_stream():
    """A run's time is estimated from the pool: "+ scale" writes (1 + (4 + 9) / 2) / 2 = 3.75 times the cells."""
    tasks, _ = made_tasks(30)

    def cells(examples):
        return sum(len(grid) * len(grid[0]) for e in examples for grid in e.grids) / len(examples)

    plain = cells(ARMS["+ color swap"].pool(tasks))
    assert cells(ARMS["+ scale"].pool(tasks)) == pytest.approx(3.75 * plain, rel=0.15)
    assert cells(_first(ARMS["+ scale"], tasks, 400)) == pytest.approx(3.75 * plain, rel=0.15)
