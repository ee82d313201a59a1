"""Tasks from folders, Kaggle's files, the real sets and the generated one."""

import hashlib
import json
from collections import Counter

import pytest

from harness.arc import sources
from harness.arc.task import LARGEST, Pair, Task, subset, within
from harness.errors import UserError

TASK = {
    "train": [{"input": [[0, 1]], "output": [[1, 0]]}, {"input": [[2]], "output": [[2]]}],
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}


def test_a_folder_of_tasks(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps(TASK))
    tasks, solutions = sources.load(str(tmp_path))
    assert [p.id for p in tasks] == ["a", "b"]
    assert tasks[0].demonstrations[0] == Pair(((0, 1),), ((1, 0),))
    assert solutions["a"] == (((4, 3),),)
    assert tasks[0].cells == 2 + 2 + 1 + 1 + 2


def test_a_task_holds_no_test_output():
    """Whatever trains is given tasks: every grid that can be reached from one is a demonstration or a test input."""
    task, outputs = sources.task_of("t", TASK, "here")
    assert outputs == (((4, 3),),)
    shown = [grid for pair in task.demonstrations for grid in (pair.input, pair.output)] + list(task.test_inputs)
    assert ((4, 3),) not in shown
    assert set(vars(task)) == {"id", "demonstrations", "test_inputs"}


def test_kaggles_pair_of_files(tmp_path):
    challenges = tmp_path / "arc-agi_evaluation_challenges.json"
    bare = {"train": TASK["train"], "test": [{"input": [[3, 4]]}]}
    challenges.write_text(json.dumps({"x": bare}))
    assert sources.load(str(challenges))[1] == {}
    (tmp_path / "arc-agi_evaluation_solutions.json").write_text(json.dumps({"x": [[[4, 3]]]}))
    assert sources.load(str(challenges))[1] == {"x": (((4, 3),),)}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"y": [[[4, 3]]]}))
    with pytest.raises(UserError, match="is for other tasks: no solution of x"):
        sources.load(str(challenges), str(other))
    other.write_text(json.dumps({"x": []}))
    with pytest.raises(UserError, match="needs 1 outputs"):
        sources.load(str(challenges), str(other))


def _with(**changes):
    return {**TASK, **changes}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "needs the lists train and test"),
        ({"train": []}, "needs the lists"),
        (_with(test=[]), "has no test pair"),
        (_with(train=[]), "has no train pair"),
        (_with(train=[{"input": [[1]]}]), "train 0 needs input and output"),
        (_with(train=[{"input": [[1], [1, 2]], "output": [[1]]}]), r"train 0 input: the rows have lengths \[1, 2\]"),
        (_with(test=[{"input": [[12]]}]), "12 is no colour"),
        (_with(test=[{"input": [[True]]}]), "True is no colour"),
        (_with(test=[{"input": [[1]] * 31}]), "31 x 1 cells"),
        (_with(test=[{"input": []}]), "list of rows"),
        (_with(test=[{"input": [[]]}]), "the rows have lengths"),
        (_with(test=[{"input": 7}]), "list of rows"),
        (_with(test=[{"input": [[1.0]]}]), "1.0 is no colour"),
    ],
)
def test_what_is_no_task_is_one_line_that_says_where(tmp_path, content, fault):
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=fault) as error:
        sources.load(str(tmp_path))
    assert "task bad" in str(error.value)
    assert "\n" not in str(error.value)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="arc1-evaluation"):
        sources.load("arc1-evaluatoin")
    with pytest.raises(UserError, match="holds no task"):
        sources.load(str(tmp_path))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        sources.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "count"), [("arc1-training", 400), ("arc1-evaluation", 400), ("arc2-evaluation", 120)]
)
def test_the_real_sets(name, count):
    tasks, solutions = sources.load(name)
    assert len(tasks) == count == len(solutions)
    assert all(len(solutions[p.id]) == len(p.test_inputs) for p in tasks)


def test_sets_are_joined_by_a_plus_each_task_once():
    """400 training and 400 evaluation tasks of ARC-AGI-1 have no id in common; a set named twice counts once."""
    parts = [sources.load(name) for name in ("arc1-training", "arc1-evaluation")]
    tasks, solutions = sources.load("arc1-training+arc1-evaluation")
    assert tasks == sorted(parts[0][0] + parts[1][0], key=lambda p: p.id) and len(tasks) == 800
    assert solutions == parts[0][1] | parts[1][1]
    assert sources.load("arc1-training+arc1-training") == parts[0]
    again, all_solutions = sources.load("arc1-training+arc2-training")  # ARC-AGI-2 took many of ARC-AGI-1's tasks
    assert len({p.id for p in again}) == len(again) == len(all_solutions)
    for name in ("arc1-training+none", "arc1-training+", "+", "arc1-training+generated"):
        with pytest.raises(UserError, match="unknown set of tasks"):
            sources.load(name)


def test_within_by_hand():
    """Every grid that is shown counts, on both sides; the test's output, which is not shown, does not."""
    wide, tall, small = ((0,) * 4,), ((0,),) * 4, ((0,),)
    made = [
        Task("small", (Pair(small, small),), (small,)),
        Task("input", (Pair(wide, small),), (small,)),
        Task("output", (Pair(small, tall),), (small,)),
        Task("test", (Pair(small, small),), (small, wide)),
    ]
    assert [p.id for p in within(made, 3)] == ["small"]
    assert within(made, 4) == made
    assert within(made[1:], 3) == []


def test_within_of_the_real_sets():
    tasks, _ = sources.load("arc1-training+arc1-evaluation")
    assert within(tasks, LARGEST) == tasks
    small = within(tasks, 10)
    assert 100 < len(small) < 400
    assert max(max(len(g), len(g[0])) for p in small for g in p.grids) == 10


def test_generated_tasks_are_always_the_same_and_held_out():
    """120 tasks, the held-out families in turn, small grids; none of them of a family that arc-tiny was trained on."""
    from harness.arc.generated import families

    tasks, solutions = sources.load("generated")
    assert (tasks, solutions) == sources.load("generated")
    assert len(tasks) == len({p.id for p in tasks}) == len(solutions) == 120
    assert tasks == sorted(tasks, key=lambda p: p.id)
    made = Counter(p.id.rpartition("-")[0] for p in tasks)
    assert made == dict.fromkeys(families.HELD_OUT, 20)
    assert not set(made) & set(families.TRAINED)
    whole = [
        (p.id, [(pair.input, pair.output) for pair in p.demonstrations], p.test_inputs, solutions[p.id]) for p in tasks
    ]
    digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    assert digest[:16] == "d6ee117866e5db92"  # another set would need another name: results are compared on it
    for p in tasks:
        assert len(p.demonstrations) == 4 and len(p.test_inputs) == len(solutions[p.id]) == 1
        assert within([p], 12) == [p]


def test_no_generated_task_is_solved_by_copying_its_input():
    tasks, solutions = sources.load("generated")
    assert [p.id for p in tasks if solutions[p.id] == p.test_inputs] == []


def test_the_subset_is_stratified_and_the_same_for_everyone():
    tasks, _ = sources.load("arc1-evaluation")
    chosen = subset(tasks, 20, seed=1)
    assert chosen == subset(list(reversed(tasks)), 20, seed=1)
    assert chosen != subset(tasks, 20, seed=2)
    ordered = sorted(tasks, key=lambda p: (p.cells, p.id))
    assert [ordered.index(p) // 20 for p in chosen] == list(range(20))
    assert len(subset(tasks, 10_000)) == len(tasks)
    with pytest.raises(UserError, match="--tasks"):
        subset(tasks, 0)
