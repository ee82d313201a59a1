"""Our side of the race with its peers trains as a fine-tune does: whole steps, packed as the device has room."""

import argparse
import io
import json

import pytest
import torch
from helpers.records import TINY

from bench import peers, peers_sides
from harness.catalog import precisions
from harness.records.cell import ModelSpec, Recipe
from harness.train import model as models
from harness.train.packing import default_tokens_at_once
from harness.train.step import TrainingStep

RECIPE = Recipe(lora_r=4, sequences_per_step=4, learning_rate=1e-2)
ARGS = argparse.Namespace(per_step=4, steps=1, arc=None, lengths=[24, 40, 31])
CPU = torch.device("cpu")


def tiny():
    return models.load(
        ModelSpec("tiny", dict(TINY), 256), precisions.find("fp32"), "fp32", RECIPE, "random", CPU, 1
    ).model


def test_our_side_packs_a_step_s_sequences_and_learns_what_they_teach_one_by_one(monkeypatch, capsys):
    data = peers_sides.sequences(ARGS, 320)
    alone = TrainingStep(tiny(), RECIPE, "fp32", CPU)
    losses = [alone.run(data[i : i + 4], tokens_at_once=1).item() for i in (0, 4)]
    packs, whole = [], TrainingStep.packed_step
    monkeypatch.setattr(
        TrainingStep, "packed_step", lambda self, packed: packs.append(packed.lengths) or whole(self, packed)
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("step\nstep\n"))
    model = tiny()
    peers_sides.own(model, RECIPE, "fp32", data, CPU)
    assert list(map(sum, packs)) == [24 + 40 + 31 + 24, 40 + 31 + 24 + 40]  # each step in one pack
    ready, *steps = capsys.readouterr().out.splitlines()
    assert ready == peers_sides.READY
    reports = [json.loads(line.removeprefix(peers_sides.TOOK)) for line in steps]
    assert [step["loss"] for step in reports] == pytest.approx(losses, rel=1e-5)
    assert reports[0]["packs"] == f"{default_tokens_at_once(model)} tokens at once"


def test_a_side_is_compared_step_by_step_with_the_first():
    """The warm-up counts for loss and peak alone: 4/2 and 9/3, the median 2.5."""
    base = [{"seconds": s, "loss": 2.0, "peak": 2**30} for s in (50.0, 2.0, 3.0)]
    rows = [
        {"seconds": s, "loss": loss, "peak": peak * 2**30}
        for s, loss, peak in ((1.0, 2.0, 3), (4.0, 2.2, 1), (9.0, 2.0, 1))
    ]
    line = peers.summary("trl", rows, base)
    assert "6.50 s per step, x2.50; peak 3.00 GiB; loss of step 1 2.00000, at most 1.0e-01 apart" in line
