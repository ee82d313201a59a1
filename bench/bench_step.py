"""The training step by model, precision and context, under pytest-benchmark: make benchmarks.

A round is one micro-step (forward and backward of one sequence) with random weights of the real shapes. Compare two
runs with `pytest-benchmark compare`. STEP_MODELS, STEP_PRECISIONS and STEP_CONTEXTS choose others.
"""

import os

import pytest
import torch

from harness.catalog import models as catalog
from harness.catalog import precisions
from harness.hardware.device import choose_device, synchronizer
from harness.hardware.probe import rates
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.step import TrainingStep

MODELS = os.environ.get("STEP_MODELS", "smollm2-135m").split()
PRECISIONS = os.environ.get("STEP_PRECISIONS", "fp32 int4").split()
CONTEXTS = [int(n) for n in os.environ.get("STEP_CONTEXTS", "64 256").split()]


@pytest.fixture(scope="module")
def device():
    return torch.device(choose_device("auto").id)


@pytest.fixture(scope="module")
def native(device):
    return rates(device, precisions.DTYPES)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MODELS)
def test_micro_step(benchmark, name, precision, context, device, native):
    known, chosen = catalog.load(), precisions.find(precision)
    compute = precisions.compute_dtype(chosen, native)
    loaded = models.load(known.find(name), chosen, compute, known.recipe, "random", device)
    step = TrainingStep(loaded.model, known.recipe, compute, device)
    batch = random_batch(loaded.model.config.vocab_size, context, known.recipe, device, seed=0)
    wait = synchronizer(device)

    def micro_step():
        step.micro_step(batch)
        wait()

    benchmark.extra_info |= {"compute_dtype": compute, "weights": "random", "params": loaded.params}
    benchmark.pedantic(micro_step, rounds=5, warmup_rounds=1, iterations=1)
