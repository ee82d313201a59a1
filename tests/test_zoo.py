"""Models of every family are trained right, or refused with the reason; `make zoo` tries all types."""

import pytest
import torch
from helpers import judge, zoo

from harness.train.small_copy import small_copies

# One of every class of families, with the reason why it is here.
FAMILIES = {
    "llama": "dense",
    "phi3": "fused projections",
    "gemma3_text": "windows",
    "gemma2": "soft caps",
    "gpt_oss": "sinks, experts",
    "qwen3_moe": "experts",
    "deepseek_v3": "latent attention, shared experts",
    "gpt2": "Conv1D",
    "gptj": "attention without the interface",
    "bloom": "alibi",
    "lfm2": "convolutions",
    "qwen3_next": "linear attention",
    "jamba": "attention and state",
    "mamba": "state space, layers that PEFT forbids",
    "phimoe": "routers that are no linear layers",
    "apertus": "an activation with parameters",
}


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name in zoo.TYPES])
def test_a_family_is_trained_and_traced_right(model_type):
    verdict = judge.judge(zoo.tiny(model_type))
    assert (verdict.verdict, verdict.detail, verdict.traced) == (judge.RIGHT, "", "")


@pytest.mark.parametrize("model_type", ["bert", "cpmant"])
def test_what_is_no_causal_language_model_is_refused_as_that(model_type):
    settings = {"is_decoder": False} if model_type == "bert" else {}
    verdict = judge.judge(zoo.tiny(model_type, **settings))
    assert verdict.verdict == judge.NOT_CAUSAL
    assert "causal" in verdict.detail


def test_the_judge_sees_what_is_wrong(monkeypatch):
    from harness.train import step

    wrong = step.packed_losses
    monkeypatch.setattr(step, "packed_losses", lambda model, packed: wrong(model, packed) * 1.01)
    verdict = judge.judge(zoo.tiny("llama"))
    assert verdict.verdict == judge.WRONG
    assert "loss" in verdict.detail


def test_every_type_has_a_tiny_config():
    for model_type in zoo.TYPES:
        assert zoo.tiny(model_type).get_text_config(decoder=True).vocab_size <= zoo.VOCAB


@pytest.mark.parametrize(
    "model_type", ["llama", "gemma2", "deepseek_v3", "bamba", "mamba2", "bart", "gptj", "gemma4", "qwen3_next"]
)
def test_a_real_config_has_a_narrow_copy(model_type):
    model = next(small_copies(zoo.real(model_type)))
    assert sum(p.numel() for p in model.parameters()) < 2e7
    assert {p.dtype for p in model.parameters()} == {torch.float32}
