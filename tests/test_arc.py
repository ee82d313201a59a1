import hashlib
import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arc import augment, encode, score, tasks
from harness.arc.augment import GEOMETRY, SAME, View
from harness.arc.tasks import Pair, Puzzle
from harness.errors import UserError

GRIDS = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 9), min_size=width, max_size=width).map(tuple), min_size=1, max_size=30
    ).map(tuple)
)
SMALL = ((1, 2, 3), (4, 5, 6))
TASK = {
    "train": [{"input": [[0, 1]], "output": [[1, 0]]}, {"input": [[2]], "output": [[2]]}],
    "test": [{"input": [[3, 4]], "output": [[4, 3]]}],
}


# --- augmentations


def test_the_eight_views_by_hand():
    """123/456 turned clockwise is 41/52/63, mirrored in the diagonal 14/25/36."""
    said = {name: encode.rows(apply(SMALL)) for name, (apply, _) in GEOMETRY.items()}
    assert said == {
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
@given(GRIDS, st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_drawn_views_and_their_chains_go_there_and_back(grid, seeds):
    chain = [augment.draw(random.Random(seed), 3) for seed in seeds]
    for view in chain:
        assert view.invert(view.apply(grid)) == grid
    assert augment.undo(chain, augment.compose(chain, grid)) == grid


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


def test_a_view_of_a_puzzle_keeps_its_rule():
    """The rule "mirror left to right" is still that after any view that keeps left and right."""
    puzzle = Puzzle("p", (Pair(((1, 2),), ((2, 1),)), Pair(((3, 4),), ((4, 3),))), (((5, 6),),))
    seen = View("flip_columns", (0, 2, 1, *range(3, 10)), (1, 0)).of(puzzle)
    assert seen.pairs == (Pair(((4, 3),), ((3, 4),)), Pair(((1, 2),), ((2, 1),)))
    assert seen.test_inputs == (((6, 5),),)


def test_views_to_predict_in_are_all_different_and_begin_plain():
    found = augment.views(20, 3)
    assert found[0] == View()
    assert {view.geometry for view in found[:8]} == set(GEOMETRY)
    assert len(set(found)) == 20
    assert found == augment.views(20, 3)


# --- encodings


@pytest.mark.parametrize("name", encode.ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_every_encoding_loses_nothing(name, grid):
    there, back = encode.ENCODINGS[name]
    assert back(there(grid)) == grid
    assert back(there(grid) + "\n") == grid


def test_encodings_by_hand():
    assert {name: there(SMALL) for name, (there, _) in encode.ENCODINGS.items()} == {
        "rows": "123\n456",
        "spaced": "1 2 3\n4 5 6",
        "numbered": "1 123\n2 456",
        "shaped": "2x3\n123\n456",
    }


@pytest.mark.parametrize("name", encode.ENCODINGS)
@pytest.mark.parametrize(
    "text",
    ["", "\n", "x", "12\n3", "1a\n23", "12\n\n34", "1" * 31, "\n".join("1" * 31), "①②", "-1", "1,2", "1  2", " 1"],
)
def test_text_that_is_no_grid_is_none(name, text):
    assert encode.ENCODINGS[name][1](text) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("numbered", "1 12\n3 34"),
        ("numbered", "0 12"),
        ("numbered", "1 1 2"),
        ("shaped", "2x2\n12"),
        ("shaped", "12\n34"),
    ],
)
def test_headers_must_be_right(name, text):
    assert encode.ENCODINGS[name][1](text) is None


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789 x\n", max_size=40))
def test_decoding_never_raises_and_never_guesses(text):
    for there, back in encode.ENCODINGS.values():
        grid = back(text)
        assert grid is None or there(grid) == text.strip("\n")


# --- tasks


def test_a_folder_of_tasks(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps(TASK))
    puzzles, solutions = tasks.load(str(tmp_path))
    assert [p.id for p in puzzles] == ["a", "b"]
    assert puzzles[0].pairs[0] == Pair(((0, 1),), ((1, 0),))
    assert solutions["a"] == (((4, 3),),)
    assert puzzles[0].cells == 2 + 2 + 1 + 1 + 2


def test_a_puzzle_holds_no_test_output():
    """Whatever trains is given puzzles: every grid that can be reached from one is a demonstration or a test input."""
    puzzle, outputs = tasks.puzzle_of("t", TASK, "here")
    assert outputs == (((4, 3),),)
    shown = [grid for pair in puzzle.pairs for grid in (pair.input, pair.output)] + list(puzzle.test_inputs)
    assert ((4, 3),) not in shown
    assert set(vars(puzzle)) == {"id", "pairs", "test_inputs"}


def test_kaggles_pair_of_files(tmp_path):
    challenges = tmp_path / "arc-agi_evaluation_challenges.json"
    bare = {"train": TASK["train"], "test": [{"input": [[3, 4]]}]}
    challenges.write_text(json.dumps({"x": bare}))
    assert tasks.load(str(challenges))[1] == {}
    (tmp_path / "arc-agi_evaluation_solutions.json").write_text(json.dumps({"x": [[[4, 3]]]}))
    assert tasks.load(str(challenges))[1] == {"x": (((4, 3),),)}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"y": [[[4, 3]]]}))
    with pytest.raises(UserError, match="is for other tasks: no solution of x"):
        tasks.load(str(challenges), str(other))
    other.write_text(json.dumps({"x": []}))
    with pytest.raises(UserError, match="needs 1 outputs"):
        tasks.load(str(challenges), str(other))


def _with(**changes):
    return {**TASK, **changes}


@pytest.mark.parametrize(
    ("said", "fault"),
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
def test_what_is_no_task_is_one_line_that_says_where(tmp_path, said, fault):
    (tmp_path / "bad.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=fault) as error:
        tasks.load(str(tmp_path))
    assert "task bad" in str(error.value)
    assert "\n" not in str(error.value)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="arc1-evaluation"):
        tasks.load("arc1-evaluatoin")
    with pytest.raises(UserError, match="holds no task"):
        tasks.load(str(tmp_path))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        tasks.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "count"), [("arc1-training", 400), ("arc1-evaluation", 400), ("arc2-evaluation", 120)]
)
def test_the_real_sets(name, count):
    puzzles, solutions = tasks.load(name)
    assert len(puzzles) == count == len(solutions)
    assert all(len(solutions[p.id]) == len(p.test_inputs) for p in puzzles)


def test_sets_are_joined_by_a_plus_each_task_once():
    """400 training and 400 evaluation tasks of ARC-AGI-1 have no id in common; a set named twice counts once."""
    parts = [tasks.load(name) for name in ("arc1-training", "arc1-evaluation")]
    puzzles, solutions = tasks.load("arc1-training+arc1-evaluation")
    assert puzzles == sorted(parts[0][0] + parts[1][0], key=lambda p: p.id) and len(puzzles) == 800
    assert solutions == parts[0][1] | parts[1][1]
    assert tasks.load("arc1-training+arc1-training") == parts[0]
    again, known = tasks.load("arc1-training+arc2-training")  # ARC-AGI-2 took many of ARC-AGI-1's tasks
    assert len({p.id for p in again}) == len(again) == len(known)
    for name in ("arc1-training+none", "arc1-training+", "+", "arc1-training+generated"):
        with pytest.raises(UserError, match="unknown set of tasks"):
            tasks.load(name)


def test_within_by_hand():
    """Every grid that is shown counts, on both sides; the test's output, which is not shown, does not."""
    wide, tall, small = ((0,) * 4,), ((0,),) * 4, ((0,),)
    made = [
        Puzzle("small", (Pair(small, small),), (small,)),
        Puzzle("input", (Pair(wide, small),), (small,)),
        Puzzle("output", (Pair(small, tall),), (small,)),
        Puzzle("test", (Pair(small, small),), (small, wide)),
    ]
    assert [p.id for p in tasks.within(made, 3)] == ["small"]
    assert tasks.within(made, 4) == made
    assert tasks.within(made[1:], 3) == []


def test_within_of_the_real_sets():
    puzzles, _ = tasks.load("arc1-training+arc1-evaluation")
    assert tasks.within(puzzles, tasks.LARGEST) == puzzles
    small = tasks.within(puzzles, 10)
    assert 100 < len(small) < 400
    assert max(max(len(g), len(g[0])) for p in small for g in p.grids) == 10


def test_generated_tasks_are_always_the_same_and_held_out():
    """120 tasks, the held-out families in turn, small grids; none of them of a family that arc-tiny was trained on."""
    from harness.tiny import families

    puzzles, solutions = tasks.load("generated")
    assert (puzzles, solutions) == tasks.load("generated")
    assert len(puzzles) == len({p.id for p in puzzles}) == len(solutions) == 120
    assert puzzles == sorted(puzzles, key=lambda p: p.id)
    made = Counter(p.id.rpartition("-")[0] for p in puzzles)
    assert made == dict.fromkeys(families.HELD_OUT, 20)
    assert not set(made) & set(families.TRAINED)
    digest = hashlib.sha256(repr((puzzles, sorted(solutions.items()))).encode()).hexdigest()
    assert digest[:16] == "9964815ec25baf2b"  # another set would need another name: results are compared on it
    for p in puzzles:
        assert len(p.pairs) == 4 and len(p.test_inputs) == len(solutions[p.id]) == 1
        assert tasks.within([p], 12) == [p]


def test_no_generated_task_is_solved_by_copying_its_input():
    puzzles, solutions = tasks.load("generated")
    assert [p.id for p in puzzles if solutions[p.id] == p.test_inputs] == []


def test_the_subset_is_stratified_and_the_same_for_everyone():
    puzzles, _ = tasks.load("arc1-evaluation")
    chosen = tasks.subset(puzzles, 20, seed=1)
    assert chosen == tasks.subset(list(reversed(puzzles)), 20, seed=1)
    assert chosen != tasks.subset(puzzles, 20, seed=2)
    ordered = sorted(puzzles, key=lambda p: (p.cells, p.id))
    assert [ordered.index(p) // 20 for p in chosen] == list(range(20))
    assert len(tasks.subset(puzzles, 10_000)) == len(puzzles)
    with pytest.raises(UserError, match="--tasks"):
        tasks.subset(puzzles, 0)


# --- scores


def test_the_vote():
    a, b, c = ((1,),), ((2,),), ((3,),)
    assert score.vote([a, b, b, None, c]) == (b, a)
    assert score.vote([None, None]) == ()
    assert score.vote([]) == ()


def test_scores_by_hand():
    """Two test inputs. The first: views answer right, wrong shape, nothing: one vote each, so both are attempts. The
    second: a grid with 1 of 2 cells right. So one of two is right: attempts 0.5, views (1/3 + 0) / 2, cells
    (1 + 0.5) / 2."""
    truth = (((1, 2),), ((3, 4),))
    found = score.score_task("t", [[((1, 2),), ((1,),), None], [((3, 9),)]], truth)
    assert found == score.TaskScore("t", 0.5, 1 / 6, 0.75, 1.0, 1.0)
    assert not found.solved


def test_unanswered_tasks_stay_in_the_denominator():
    truths = {"a": (((1,),),), "b": (((1,),), ((2,),))}
    found = score.score({"b": [[((1,),)]]}, truths)
    assert [s.attempts for s in found] == [0.0, 0.5]
    assert found[0].answered == 0.0
    with pytest.raises(ValueError, match="2 test inputs"):
        score.score_task("a", [[], []], truths["a"])
