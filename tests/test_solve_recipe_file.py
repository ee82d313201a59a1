"""From `pick --emit` to `solve --recipe`: what was chosen is what runs."""

from dataclasses import replace

import pytest
from helpers.ranking import row_of
from helpers.records import result, row
from helpers.tasks import made_tasks, write_tasks

import harness
from harness.catalog import model_folder, models
from harness.cli import app, solve
from harness.errors import UserError
from harness.records.arm import DFS, ROWS, TASK
from harness.records.cell import Recipe
from harness.records.store import Store
from harness.solve import recipe_file


def test_what_pick_chose_is_what_solve_runs(arc_folder, tmp_path, capsys, monkeypatch):
    model = replace(model_folder.from_folder(arc_folder), name="picked")
    cell = replace(row().cell, model=model, weights=str(arc_folder), context=512)
    Store(tmp_path).add(replace(row((0.01,) * 12), cell=cell))
    tuned = result(3)
    spec = replace(tuned.spec, model=model, weights=str(arc_folder), precision=cell.precision, scope=TASK, decode=DFS)
    spec = replace(spec, context=cell.context)
    Store(tmp_path, kind=ROWS).add(replace(tuned, spec=spec))
    path = tmp_path / "run.yaml"
    with pytest.raises(SystemExit) as end:
        app.main(["pick", "--results", str(tmp_path), "--emit", str(path)])
    assert end.value.code == 0, capsys.readouterr().out
    file = recipe_file.read(path)
    assert file.model == str(arc_folder) and file.context == 512 and file.precision == cell.precision
    assert (file.decode, file.select) == (DFS, "vote")
    assert file.views == spec.views and file.arm == tuned.arm and file.steps == spec.steps
    # Options of the command line win over the file, the file over the defaults.
    write_tasks(tmp_path / "tasks", *made_tasks(2))
    monkeypatch.chdir(tmp_path)
    defaults = {p.name: p.default for p in solve.signature(solve.configure).parameters.values()}
    options = solve._with_file({**defaults, "tasks": "tasks", "views": 7}, path)
    config = solve.configure(**options)
    assert config.tune.decode == DFS
    assert config.tune.views == 7 and config.tune.context == 512 and config.arm == tuned.arm
    assert config.tune.model.path == str(arc_folder) and config.tune.precision == cell.precision


def test_without_an_accuracy_the_model_is_tuned_as_the_catalogue_says(tmp_path):
    """The sweep timed steps of 16 sequences at 5e-5; arc-tiny learns by 24 steps of 4 at 4e-3 on all linear layers."""
    swept = row((0.01,) * 12)
    catalog = models.load()
    timed = Recipe(sequences_per_step=16, learning_rate=5e-5, lora_targets="attention", trim_vocab=True)
    cell = replace(swept.cell, model=catalog.find("arc-tiny"), weights="bundled:arc-tiny@0", context=512, recipe=timed)
    Store(tmp_path).add(replace(swept, cell=cell))
    with pytest.raises(SystemExit) as end:
        app.main(["pick", "--results", str(tmp_path), "--emit", str(tmp_path / "run.yaml")])
    assert end.value.code == 0
    wanted = {"model": "arc-tiny", "precision": "fp32", "context": 512, "trim_vocab": True}
    assert recipe_file.read(tmp_path / "run.yaml").options() == wanted == harness.load(tmp_path).pick
    write_tasks(tmp_path / "tasks", *made_tasks(2))
    tune = solve.configure(**(wanted | {"tasks": str(tmp_path / "tasks"), "out": tmp_path / "s.json"})).tune
    recipe = tune.recipe
    assert (tune.steps, tune.views, recipe.sequences_per_step) == (24, 4, 4)
    assert (recipe.learning_rate, recipe.lora_targets) == (4e-3, "all-linear")


def test_a_recipe_that_is_not_there_is_named_by_its_own_option(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*; name another file with --recipe"):
        recipe_file.read(tmp_path / "run.yaml")


def test_what_is_emitted_is_what_the_sentence_names(tmp_path, capsys):
    """By size alone a context that admits half of ARC's sequences goes before a larger model, which is listed first."""
    for measured in (row_of("large", 0.01, context=512, params=2), row_of("small", 0.1, context=2048, params=1)):
        Store(tmp_path).add(measured)
    path, record = tmp_path / "run.yaml", harness.load(tmp_path)
    with pytest.raises(SystemExit):
        app.main(["pick", "--results", str(tmp_path), "--emit", str(path)])
    printed = " ".join(capsys.readouterr().out.split())
    assert record.verdict in printed and "Best candidate: small fp32 at 2048 tokens" in printed
    assert recipe_file.read(path).options() == record.pick == {"model": "small", "precision": "fp32", "context": 2048}
    # Where none fits, both name the nearest.
    strict = harness.load(tmp_path, budget_hours=1e-3)
    assert "Nearest: large" in strict.verdict and strict.pick["model"] == "large"


@pytest.mark.parametrize(
    ("text", "message"),
    [("steps: 0\nmodel: x", "steps must be"), ("nosuch: 1\nmodel: x", "nosuch is not a known key"), ("[]", "run.yaml")],
)
def test_a_broken_recipe_is_one_line(text, message, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        app.main(["solve", "--recipe", str(tmp_path / "run.yaml"), "--tasks", "arc1-evaluation"])
    err = capsys.readouterr().err
    assert end.value.code == 2 and message in err and len(err.strip().splitlines()) == 1
