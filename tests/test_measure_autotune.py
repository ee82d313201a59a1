"""The fit search on a made-up device: the fastest that fits is measured, and memory that runs out is lived with."""

from dataclasses import dataclass, replace

import pytest
import torch

from harness.catalog.precisions import find
from harness.measure import autotune
from harness.predict.variants import recipe_variants
from harness.records.cell import MLP, Cell, ModelSpec, Recipe
from harness.records.measurement import Measurement
from harness.train.batches import random_batch
from harness.train.model import load
from harness.train.step import TrainingStep

CELL = Cell(ModelSpec("m", {}, 4096), "bf16", "bf16", 1024, Recipe(), "random", "cuda:0", "A card")


@dataclass
class Expected:
    micro_s: float
    peak_bytes: float
    room: float

    def fits_memory(self):
        return True if self.peak_bytes < self.room else None if self.peak_bytes < 1.2 * self.room else False


def on_a_card(room):
    """A micro-batch of n takes 1 + n seconds, a third more with checkpointing, a tenth with the MLPs' alone; a sequence
    holds 10, 2 or 4."""

    def foresee(cell):
        n, again = cell.recipe.micro_batch, cell.recipe.gradient_checkpointing
        slower, held = {"none": (1, 10), MLP: (1.1, 4), "all": (4 / 3, 2)}[again]
        return Expected((1 + n) * slower, n * held, room)

    return foresee


def named(cells):
    return [cell.recipe.mark for cell in cells]


def test_the_fastest_that_surely_fits_comes_first():
    """Seconds a sequence: 8 at once 9/8, 4 5/4, 2 3/2, 1 2. With room for 25 four that make the MLPs again (16 held,
    1.375 s), and two that do not (20, 1.5 s) or eight that make all again (16, 1.5 s)."""
    assert named(recipe_variants(CELL, on_a_card(1000)))[:2] == ["/b8", "/b4"]
    assert named(recipe_variants(CELL, on_a_card(25)))[:3] == ["/b4/ckpt-mlp", "/b2", "/b8/ckpt"]
    assert all(cell.why.startswith("fitted: micro-batch") for cell in recipe_variants(CELL, on_a_card(25)))


def test_a_search_goes_to_the_cell_s_own_micro_batch_at_least():
    """A card may take sixteen sequences at once by default: 17/16 s per sequence, less than eight take."""
    wide = replace(CELL, recipe=Recipe(micro_batch=16))
    assert named(recipe_variants(wide, on_a_card(1000)))[:2] == ["/b16", "/b8"]


def test_what_may_not_fit_is_tried_only_where_nothing_surely_does():
    assert named(recipe_variants(CELL, on_a_card(1.9))) == ["/ckpt"]
    assert named(recipe_variants(CELL, on_a_card(5))) == ["/b2/ckpt", "/ckpt-mlp", "/ckpt"]


def test_of_as_many_sequences_the_fastest_that_fits_is_enough_but_of_one():
    """Each prediction takes seconds the first time, and what makes more again is slower."""
    predicted, foresee = [], on_a_card(1000)
    recipe_variants(CELL, lambda cell: predicted.append(cell.recipe.mark) or foresee(cell))
    assert predicted == ["", "/ckpt-mlp", "/ckpt", "/b2", "/b4", "/b8"]


def test_nothing_is_tried_where_nothing_is_known():
    assert recipe_variants(CELL, on_a_card(0.1)) == [CELL]
    assert recipe_variants(CELL, lambda cell: None) == [CELL]


def measured(seconds):
    def measure(cell):
        took = seconds.get(cell.recipe.mark, "oom")
        row = Measurement(cell.recipe.mark, cell, "oom" if took == "oom" else "ok")
        return row if took == "oom" else replace(row, micro_s=(took,), optimizer_s=(0.0,))

    return measure


def test_the_faster_of_two_measured_is_taken_whatever_was_predicted():
    variants = recipe_variants(CELL, on_a_card(1000))
    # per step of 16 sequences: two micro-steps of 9 s; four of 4 s
    assert autotune.best(variants, measured({"/b8": 9.0, "/b4": 4.0})).key == "/b4"
    # the first runs out of memory: the two after it
    assert autotune.best(variants, measured({"/b4": 5.0, "/b2": 1.0})).key == "/b2"
    assert autotune.best(variants, measured({})).status == "oom"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_and_micro_batches_change_no_gradient(tiny_spec, precision):
    """What the search may choose from gives the same gradients: two sequences at once, one by one, and recomputed."""
    gradients = {}
    for batch, again in ((1, "none"), (2, "none"), (2, MLP), (2, "all")):
        recipe = Recipe(lora_r=4, sequences_per_step=2, micro_batch=batch, gradient_checkpointing=again)
        model = load(tiny_spec, find(precision), precision, recipe, "random", torch.device("cpu")).model
        step = TrainingStep(model, recipe, precision, torch.device("cpu"))
        both = random_batch(320, 48, replace(recipe, micro_batch=2), torch.device("cpu"), 0)
        for part in both.input_ids.split(batch):
            step.micro_step(replace(both, input_ids=part))
        gradients[batch, again] = torch.cat([p.grad.flatten() for p in step.params])
    tolerance = 1e-5 if precision == "fp32" else 3e-2
    reference = gradients[1, "none"]
    assert reference.abs().max() > 0
    for grads in gradients.values():
        assert (grads - reference).abs().max() <= tolerance * reference.abs().max()
