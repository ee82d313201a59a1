"""What measuring accuracy is asked: whose ttft block holds, which tasks are taken, and what is refused in one line."""

import re
from dataclasses import replace

import pytest
from helpers.tasks import made_tasks, write_tasks

from harness.arc.task import Pair, Task
from harness.catalog import models as catalog
from harness.catalog.recipes import RecipeOptions, resolve
from harness.cli import app
from harness.errors import UserError
from harness.records.cell import ModelSpec, Recipe
from harness.tune.config import TuneConfig, settings_for

OWN = {"tasks": 3, "steps": 5, "context": 256, "views": 3, "grid_limit": 10, "learning_rate": 1e-3}


@pytest.fixture
def catalogue(tmp_path, shipped):
    """A catalogue whose ttft block names a folder of six tasks, one of them with a grid of 12 x 12."""
    tasks, solutions = made_tasks(5)
    big = tuple(tuple((i + j) % 10 for j in range(12)) for i in range(12))
    tasks.append(Task("big", (Pair(big, big[::-1]),) * 3, (big,)))
    folder = write_tasks(tmp_path / "tasks", tasks, solutions | {"big": (big[::-1],)})
    write_tasks(tmp_path / "own", *made_tasks(4))
    return replace(
        shipped, ttft=catalog.TuneDefaults(set=str(folder), grid_limit=30, tasks=20, steps=64, context=2048, views=2)
    )


def _spec(window=1024, **ttft):
    return ModelSpec("small", {"model_type": "llama"}, window, ttft=ttft or None)


def _of(catalogue, spec=None, alone=True, weights="w", solutions=None, **more):
    """The config of a model of whose settings `more` says some, and other fields of the config."""
    spec = spec or _spec()
    names = ("set", "grid_limit", "tasks", "steps", "context", "views", "learning_rate")
    settings = settings_for(catalogue, spec, alone).override(**{n: more.pop(n) for n in names if n in more})
    recipe = resolve(catalogue.recipe, RecipeOptions(learning_rate=settings.learning_rate))
    return TuneConfig.of(spec, weights, settings, solutions_file=solutions, recipe=recipe, **more)


def test_a_model_alone_has_its_own_block_and_among_several_the_files(catalogue, tmp_path):
    own = {**OWN, "set": str(tmp_path / "own")}
    config = _of(catalogue, _spec(**own))
    assert (len(config.tasks), config.steps, config.context, config.views) == (3, 5, 256, 3)
    assert config.dataset == f"{tmp_path / 'own'}, grids to 10"
    assert config.recipe == replace(catalogue.recipe, learning_rate=1e-3)
    among = _of(catalogue, _spec(**own), alone=False)
    plain = _of(catalogue)
    assert (among.dataset, among.tasks) == (plain.dataset, plain.tasks) and len(among.tasks) == 6
    assert (among.context, among.views) == (plain.context, plain.views) == (1024, 2)
    assert (among.steps, among.recipe.learning_rate) == (5, 1e-3)  # how each is trained is no part of it
    assert plain.steps == 64
    assert plain.recipe == catalogue.recipe == Recipe()


def test_what_is_asked_goes_before_both(catalogue):
    options = {"steps": 7, "context": 128, "views": 1, "tasks": 2, "grid_limit": 12, "learning_rate": 2e-4}
    config = _of(catalogue, _spec(**OWN), set=catalogue.ttft.set, **options)
    assert (len(config.tasks), config.steps, config.context, config.views) == (2, 7, 128, 1)
    assert config.recipe.learning_rate == 2e-4
    assert config.dataset == f"{catalogue.ttft.set}, grids to 12"


def test_the_default_context_ends_with_the_window(catalogue):
    assert _of(catalogue, _spec(window=512)).context == 512
    assert _of(catalogue, _spec(window=8192)).context == 2048


def test_only_small_tasks_and_the_set_is_named_so(catalogue):
    config = _of(catalogue, grid_limit=10)
    assert "big" not in [task.id for task in config.tasks] and len(config.tasks) == 5
    assert config.dataset.endswith(", grids to 10")
    assert _of(catalogue, grid_limit=30).dataset == _of(catalogue).dataset == catalogue.ttft.set
    assert "big" in [task.id for task in _of(catalogue, grid_limit=12).tasks]


def test_the_same_tasks_for_every_model_of_a_comparison(catalogue):
    one, two = (_of(catalogue, _spec(window), alone=False, tasks=3, seed=4) for window in (512, 1024))
    assert one.tasks == two.tasks and one.dataset == two.dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "tasks"}, "unknown scope 'tasks'; did you mean task"),
        ({"too_long": "cut"}, "unknown way with long prompts 'cut'; known: drop, shorten"),
        ({"encoding": "row"}, "unknown encoding 'row'; did you mean rows"),
        ({"arms": "n-3"}, "unknown arm 'n-3'"),
        ({"arms": ""}, "arm"),
        ({"arms": " , "}, "arm"),
        ({"precision": "int5"}, "unknown precision 'int5'"),
        ({"grid_limit": 0}, "--grid-limit must be a whole number from 1 to"),
        ({"grid_limit": -3}, "--grid-limit must be a whole number from 1 to"),
        ({"grid_limit": 1}, "no task has all its grids within 1 a side; ask for a larger --grid-limit"),
        ({"steps": 0}, "--steps must be a whole number from 1 to"),
        ({"views": 0}, "--views must be a whole number from 1 to"),
        ({"tasks": 0}, "--tasks must be a whole number from 1 to"),
        ({"context": 63}, "--context must be a whole number from 64 to"),
        ({"context": 1025}, "--context 1025 is beyond the window of small, 1024 tokens"),
        ({"learning_rate": 0.0}, "--learning-rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a number above 0"),
        ({"set": "arc1-evaluatoin"}, "unknown set of tasks, folder or file"),
        ({"set": "arc1-evaluation+none"}, "unknown set of tasks, folder or file"),
    ],
)
def test_bad_values_are_one_line_each(catalogue, options, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        _of(catalogue, **options)
    assert "\n" not in str(error.value)


def test_a_model_without_weights_is_told_how_to_get_some(catalogue):
    with pytest.raises(UserError, match="small: no weights: accuracy not measured; give them with --weights PATH"):
        _of(catalogue, weights="random")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scope", "both"], "unknown scope 'both'"),
        (["--too-long", "cut"], "unknown way with long prompts 'cut'"),
        (["--grid-limit", "0"], "--grid-limit must be a whole number from 1 to"),
        (["--grid-limit", "1"], "ask for a larger --grid-limit"),
        (["--context", "64"], "none of 3 tasks fits 64 tokens"),
        (["--arms", ","], "arm"),
    ],
)
def test_the_verb_refuses_in_one_line(arc_folder, tmp_path, capsys, words, message):
    """Of grids of 8 x 8: 64 tokens hold no question. Nothing is written of what could not be run."""
    folder = write_tasks(tmp_path / "tasks", *_wide(3))
    common = ["--set", str(folder), "--device", "cpu", "--results", str(tmp_path / "results"), "--arms", "baseline"]
    with pytest.raises(SystemExit) as end:
        app.main(["ttft", str(arc_folder), *common, *words])
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown and len(shown.strip().splitlines()) == 1 and shown.startswith("error: ")
    record = tmp_path / "results" / "accuracy.jsonl"
    assert not record.exists() or record.read_text() == ""


def _wide(count):
    tasks, solutions = made_tasks(count)
    grid = ((1, 2, 3, 4, 5, 6, 7, 8),) * 8
    return [Task(p.id, (Pair(grid, grid),) * 3, (grid,)) for p in tasks], dict.fromkeys(solutions, (grid,))
