"""Models of every family are trained right, or refused with the reason; `make zoo` tries all types."""

from dataclasses import replace

import pytest
import torch
from helpers import judge, zoo
from torch.utils.flop_counter import FlopCounterMode

from harness.predict.flops import count_flops
from harness.train.batches import Batch
from harness.train.losses import answer_loss
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


def test_the_judge_sees_an_update_that_is_lost(monkeypatch):
    from harness.train import step

    monkeypatch.setattr(step.TrainingStep, "update", lambda self: None)
    verdict = judge.judge(zoo.tiny("llama"), wide=True)
    assert verdict.verdict == judge.WRONG
    assert "after 1 updates" in verdict.detail


def test_the_judge_compares_nothing_that_is_random():
    verdict = judge.judge(zoo.tiny("llama", attention_dropout=0.5))
    assert (verdict.verdict, verdict.detail) == (judge.PLAIN_FAILS, "random in training: its step differs from itself")


@pytest.mark.parametrize(
    ("model_type", "settings", "attention_counts"),
    [("dbrx", {}, False), ("jetmoe", {}, False), ("longcat_flash", {"zero_expert_num": 0}, True)],
)
def test_routed_experts_without_storage_have_the_flops_of_a_real_step(model_type, settings, attention_counts):
    """As many whatever the routing, for every token goes to as many experts.

    Torch does not count attention's kernel for the CPU, all of the quadratic part; LongCat's goes another way.
    """
    spec, tokens = judge.spec_of(zoo.tiny(model_type, **settings)), 200
    model = judge._load(spec, replace(judge.RECIPE, kernels="attention=sdpa pointwise=plain")).model
    answer_tokens = judge.RECIPE.answer_tokens(tokens)
    with FlopCounterMode(display=False) as counter:
        answer_loss(model, Batch(torch.arange(tokens)[None] % zoo.VOCAB, answer_tokens)).backward()
    work, _ = count_flops(spec, judge.RECIPE)
    predicted = work.total(tokens) if attention_counts else (work.forward_linear + work.backward_linear) * tokens
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.005)


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
