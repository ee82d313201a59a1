"""Our step against the plain one of transformers and PEFT: twenty updates on real ARC prompts, loss for loss.

The plain step computes logits of every token, one sequence at a time, with attention and layers as they come. In 16
bits two right orders of rounding drift apart, so there both are held against the plain step in fp32: ours must be no
further from it than a rounding of the same size makes the plain one.
"""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from helpers.records import TINY
from transformers import AutoConfig, AutoModelForCausalLM

from harness.arc.examples import SETS
from harness.arc.prompt import build
from harness.arc.sources import load
from harness.catalog import models as catalog
from harness.catalog import precisions, weights
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.train import model as models
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
STEPS, PER_STEP = 20, 3
ARCHITECTURES = {
    "qwen2": {"num_key_value_heads": 2},
    "llama": {},
    "phi3": {"pad_token_id": 0, "tie_word_embeddings": False, "head_dim": None},
    "gemma3_text": {"sliding_window": 50, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"num_key_value_heads": 2},
}
RECIPE = Recipe(lora_r=8, lora_targets="all-linear", sequences_per_step=PER_STEP, learning_rate=1e-3)


@lru_cache
def prompts() -> list[tuple[tuple[int, ...], int]]:
    """Leave-one-out prompts of ARC-AGI-1's training tasks of 60 to 250 tokens, each four times."""
    spec = catalog.load().find("arc-tiny")
    tokenizer = models.load_tokenizer(weights.resolve(spec, "auto"))
    built = []
    for task in load("arc1-training")[0]:
        for e in SETS["n-1"](task):
            prompt = build(tokenizer, e.demonstrations, e.test_input, e.output, "rows")
            if 60 <= len(prompt.ids) <= 250:
                built.append((tuple(prompt.ids), prompt.answer_tokens))
        if len(built) == STEPS * PER_STEP:
            return built
    raise AssertionError("too few prompts")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small model of each architecture on disk; bf16, so that every dtype reads the same values."""

    @lru_cache
    def of(kind: str) -> tuple[ModelSpec, str]:
        architecture = {**TINY, "model_type": kind, **ARCHITECTURES[kind]}
        architecture = {name: value for name, value in architecture.items() if value is not None}
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        config = AutoConfig.for_model(**architecture)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        return ModelSpec(kind, architecture, 1024), str(folder)

    return of


@pytest.fixture(scope="module")
def trained(folders):
    @lru_cache
    def through(kind: str, name: str, compute: str, implementation: str, at_once: int):
        """The loss of every step, and how far every adapter matrix has moved, in one row."""
        spec, folder = folders(kind)
        kernels = "plain" if at_once == 1 else "attention=blocks pointwise=compiled"  # the reference takes neither
        recipe = replace(RECIPE, implementation=implementation, kernels=kernels)
        loaded = models.load(spec, precisions.find(name), compute, recipe, folder, CPU, seed=3)
        assert loaded.unpatched == ()
        adapter = [p for p in loaded.model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in adapter]
        step, todo = TrainingStep(loaded.model, recipe, compute, CPU), prompts()
        losses = [step.run(todo[i : i + PER_STEP], at_once).item() for i in range(0, len(todo), PER_STEP)]
        moved = torch.cat([(p.detach() - old).flatten() for p, old in zip(adapter, before, strict=True)])
        return torch.tensor(losses, dtype=torch.float64), moved.double()

    return through


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("at_once", [1, 10_000], ids=["alone", "packed"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_in_fp32_losses_and_adapter_are_those_of_the_plain_step(trained, kind, at_once):
    losses, moved = trained(kind, "fp32", "fp32", "own", at_once)
    expected, expected_moved = trained(kind, "fp32", "fp32", REFERENCE, 1)
    assert expected[-5:].mean() < expected[:5].mean() - 0.03  # it learns, so that there is something to compare
    assert (losses / expected - 1).abs().max() < 1e-4
    assert _apart(moved, expected_moved) < 0.01


@pytest.mark.parametrize("at_once", [1, 10_000], ids=["alone", "packed"])
@pytest.mark.parametrize("name", ["bf16", "int4"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_in_16_bits_no_further_from_fp32_than_the_plain_step(trained, kind, name, at_once):
    exact, exact_moved = trained(kind, "fp32" if name == "bf16" else name, "fp32", REFERENCE, 1)
    plain, plain_moved = trained(kind, name, "bf16", REFERENCE, 1)
    losses, moved = trained(kind, name, "bf16", "own", at_once)
    assert (losses / plain - 1).abs().max() < 2e-3
    assert _apart(losses, exact) < 2 * _apart(plain, exact) + 2e-4
    assert _apart(moved, exact_moved) < 1.5 * _apart(plain_moved, exact_moved)
