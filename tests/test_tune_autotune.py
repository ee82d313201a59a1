"""The fit of a fine-tune: the faster of two that run is used, and nothing else changes by it."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers.tasks import made_tasks, write_tasks
from helpers.tuning import InProcess, arms_of, spec_of

from harness.cli import app
from harness.records.cell import MLP, Cell
from harness.train.packing import PackSetting
from harness.tune import autotune, experiment
from harness.tune.config import ArmsJob


@dataclass
class Expected:
    micro_s: float
    peak_bytes: float

    def fits_memory(self):
        return True


def foresee(cell):
    """Checkpointing foreseen to be free, and a larger micro-batch better."""
    n, recompute = cell.recipe.micro_batch, cell.recipe.gradient_checkpointing
    return Expected(n * (1.5 if recompute == "none" else 1) - 0.1 * n, n) if n <= 4 else None


@pytest.fixture
def spec(arc_folder):
    return spec_of(arc_folder, made_tasks(2)[0])


class Model:
    """Says which memory it has by what is asked of it."""

    cleared = 0

    recompute = None

    def zero_grad(self, **_):
        self.cleared += 1


def test_variants_are_those_of_a_profile_in_tokens(spec):
    cells = autotune.variants(spec, foresee, 600)
    assert cells[:2] == [PackSetting(512, MLP), PackSetting(512, "all")]  # alike a sequence: the first stands
    assert cells[2:] == [PackSetting(512, "none"), PackSetting(1024, "none")]
    assert autotune.variants(spec, lambda cell: None, 600) == [PackSetting(512, "none")]


def test_a_search_goes_to_what_is_packed_by_default_at_least(spec):
    """16 sequences of 512 are 8192 tokens: a card that packs 9000 by itself is not searched to 8 sequences alone."""
    spec = replace(spec, recipe=replace(spec.recipe, sequences_per_step=16))
    everything = autotune.variants(spec, lambda cell: Expected(1.0, 1.0), 9000)
    assert PackSetting(8192, "none") in everything
    assert PackSetting(8192, "none") not in autotune.variants(spec, lambda cell: Expected(1.0, 1.0), 8000)
    assert autotune.variants(spec, lambda cell: None, 9000) == [PackSetting(8192, "none")]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 3.0, 2: 2.0, 3: 1.0}, PackSetting(2, "none")),  # two are enough, whatever the third would have taken
        ({2: 2.0, 3: 1.0}, PackSetting(3, "all")),
        ({3: 9.0}, PackSetting(3, "all")),
    ],
)
def test_the_faster_of_two_that_run_is_used(monkeypatch, spec, seconds, best):
    def measured(model, sequences, tokens, spec):
        assert model.recompute == ("none" if tokens == 2 else "all")
        if tokens not in seconds:
            raise torch.OutOfMemoryError("no room")
        return seconds[tokens]

    monkeypatch.setattr(autotune, "seconds_per_token", measured)
    monkeypatch.setattr(autotune.recompute, "apply", lambda model, mode: setattr(model, "recompute", mode))
    model, notes = Model(), []
    assert (
        autotune.fastest(
            model, [], [PackSetting(1, "all"), PackSetting(2, "none"), PackSetting(3, "all")], spec, notes.append
        )
        == best
    )
    assert model.recompute == best.recompute and notes[-1].startswith(f"fitted: {best}")
    assert model.cleared == sum("out of memory" in line for line in notes)


def test_where_nothing_fits_memory_is_what_is_said(monkeypatch, spec):
    def never(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(autotune, "seconds_per_token", never)
    monkeypatch.setattr(autotune.recompute, "apply", lambda model, mode: None)
    with pytest.raises(torch.OutOfMemoryError):
        autotune.fastest(Model(), [], [PackSetting(1, "all")], spec, lambda text: None)


def test_a_fitted_fine_tune_learns_the_same(tmp_path, arc_folder, monkeypatch):
    """Packs and checkpointing as they were found best change the order of sums alone."""
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks)
    monkeypatch.setattr(experiment, "_predictor", lambda report, folder, note: foresee)
    (plain,), _ = arms_of(spec, tasks, solutions, tmp_path / "plain")
    (fitted,), notes = arms_of(spec, tasks, solutions, tmp_path / "fitted", autotune=True)
    assert any(line.startswith("fitted: ") and "tokens/s" in line for line in notes)
    assert fitted.step_losses == pytest.approx(plain.step_losses, rel=1e-4)
    assert fitted.step_losses[-1] < fitted.step_losses[0]


def test_a_baseline_alone_has_nothing_to_fit(tmp_path, arc_folder, monkeypatch):
    monkeypatch.setattr(experiment, "_predictor", lambda report, folder, note: foresee)
    tasks, solutions = made_tasks(2)
    _, notes = arms_of(spec_of(arc_folder, tasks), tasks, solutions, tmp_path, "baseline", autotune=True)
    assert not any("fit" in line for line in notes)


def test_cells_of_a_fine_tune_are_predicted_here(tmp_path, spec):
    job = ArmsJob(spec, (), {}, (), str(tmp_path / "results" / "here"), report=InProcess.report)
    cell = Cell(spec.model, "fp32", "fp32", 512, spec.recipe, spec.weights, "cpu", "a CPU")
    prediction = experiment._predictor(job.report, Path(job.folder), print)(cell)
    assert prediction.fits_memory() is True and prediction.micro_s > 0


def test_a_cell_that_cannot_be_predicted_says_so_once(tmp_path, spec):
    notes = []
    job = ArmsJob(spec, (), {}, (), str(tmp_path / "results" / "here"), report=InProcess.report)
    cell = Cell(spec.model, "fp16", "fp16", 512, spec.recipe, spec.weights, "cpu", "a CPU")
    predict = experiment._predictor(replace(job.report, rates={}), Path(job.folder), notes.append)
    assert [predict(cell), predict(replace(cell, context=256))] == [None, None]
    assert notes == ["--autotune has nothing to predict with: this device has no fp16 matrix product"]


def test_the_verb_fits(weights_folder, tmp_path, capsys):
    tasks = write_tasks(tmp_path / "tasks", *made_tasks(2))
    common = ["--set", str(tasks), "--device", "cpu", "--results", str(tmp_path / "results"), "--context", "256"]
    with pytest.raises(SystemExit) as end:
        app.main(["ttft", str(weights_folder), *common, "--arms", "n-1", "--tasks", "2", "--steps", "1", "--fit"])
    assert not end.value.code
    assert "fitted: " in capsys.readouterr().out
