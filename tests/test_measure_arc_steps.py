"""What bench times over ARC's lengths is what a fine-tune runs: the same step, packed to the same tokens."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from helpers.records import TINY

from harness.arc.lengths import PUBLISHED
from harness.catalog import precisions
from harness.measure import worker
from harness.measure.arc_steps import ArcSteps
from harness.records.cell import Cell, ModelSpec, Recipe
from harness.records.stored import to_stored
from harness.train import model as models
from harness.train.packing import default_tokens_at_once
from harness.train.step import TrainingStep

SPEC = ModelSpec("tiny", TINY | {"max_position_embeddings": 1024}, 1024)
CELL = Cell(SPEC, "fp32", "fp32", 600, Recipe(lora_r=4, sequences_per_step=4), "random", "cpu", "a CPU")


@pytest.fixture(scope="module")
def step():
    loaded = models.load(SPEC, precisions.find("fp32"), "fp32", CELL.recipe, "random", torch.device("cpu"))
    return TrainingStep(loaded.model, CELL.recipe, "fp32", torch.device("cpu"))


def test_a_step_has_sequences_of_arc_s_lengths_with_their_answers(step):
    arc = ArcSteps(step, CELL, 320, seed=0)
    for sequences in arc.pool:
        assert len(sequences) == 4
        assert all(350 <= len(ids) <= 600 and answer == round(0.12 * len(ids)) for ids, answer in sequences)
        assert all(0 <= token < 320 for ids, _ in sequences for token in ids)
    mean, _ = PUBLISHED.moments(600)
    assert fmean(len(ids) for sequences in arc.pool for ids, _ in sequences) == pytest.approx(mean, rel=0.03)
    assert ArcSteps(step, CELL, 320, seed=0).pool == arc.pool != ArcSteps(step, CELL, 320, seed=1).pool


def test_steps_are_packed_as_a_fine_tune_packs_them(step, monkeypatch):
    runs = []
    monkeypatch.setattr(step, "run", lambda sequences, tokens: runs.append((len(sequences), tokens)))
    arc = ArcSteps(step, CELL, 320, seed=0)
    arc.run()
    assert runs == [(4, max(600, default_tokens_at_once(step.model)))]


def test_which_tokens_each_timed_step_had(step):
    """The first step is warm-up, so the first that counts has the pool's second sequences."""
    arc = ArcSteps(step, CELL, 320, seed=0)
    fields = arc.measured(lambda max_seconds: [1.0, 2.0], [1.0], 60.0)
    assert fields["arc_step_tokens"] == [sum(len(ids) for ids, _ in arc.pool[i]) for i in (1, 2)]
    assert fields["arc_step_s"] == [1.0, 2.0]


def test_what_would_take_too_long_or_fits_no_sequence_is_not_timed(step):
    def never(max_seconds):
        raise AssertionError("timed")

    assert not ArcSteps(step, CELL, 320, seed=0).measured(never, [100.0], 60.0).get("arc_step_s")
    short = ArcSteps(step, replace(CELL, context=256), 320, seed=0)
    assert not short.measured(never, [0.001], 60.0).get("arc_step_s")


def test_a_worker_times_them_when_it_is_told_to():
    payload = {"cell": to_stored(CELL), "sample_seconds": 0.5, "seed": 0, "arc_seconds": 0.5}
    measured = worker.measure_cell(payload, lambda *_, **__: None)
    assert measured["status"] == "ok", measured["reason"]
    assert len(measured["arc_step_s"]) >= 2
    # Four sequences of at most 600 tokens in packs: no step is faster than one of its micro-steps would be.
    assert min(measured["arc_step_s"]) > min(measured["micro_s"])
    plain = worker.measure_cell(payload | {"arc_seconds": 0.0}, lambda *_, **__: None)
    assert "arc_step_s" not in plain
