"""What of our step an architecture may use: whatever would learn something else than the plain step is left out."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    BertConfig,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    StableLmConfig,
)

from harness.catalog import models as catalog
from harness.catalog.precisions import find
from harness.errors import Unsupported
from harness.records.cell import ModelSpec, Recipe
from harness.train import check, random_init
from harness.train import model as models
from harness.train.small_copy import small_copies
from harness.train.step import TrainingStep

RECIPE = Recipe(lora_targets="all-linear", lora_r=4, sequences_per_step=3, learning_rate=1e-3)
SIZES = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
         "pad_token_id": 0}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096,
            "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "granite": GraniteConfig(**SIZES, residual_multiplier=0.2),
    "gemma2": Gemma2Config(**SIZES, head_dim=16, sliding_window=24, attn_logit_softcapping=2.0),
    "gpt_oss": GptOssConfig(**SIZES, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=24),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "stablelm": StableLmConfig(**SIZES),
    "bloom": BloomConfig(vocab_size=320, hidden_size=64, n_layer=2, n_head=4),
    "gpt2": GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=4, n_positions=512, resid_pdrop=0.0,
                       embd_pdrop=0.0, attn_pdrop=0.0),
    "longrope": Phi3Config(**SIZES, rope_parameters=LONGROPE),
}  # fmt: skip
# What must not be ours; other parts may be left out too.
LEFT_OUT = {
    "granite": {"last"},
    "gemma2": {"attention"},
    "gpt_oss": {"attention"},
    "lfm2": {"packing"},
    "bloom": {"packing"},
    "longrope": {"packing"},
}


@pytest.fixture(scope="module")
def supported(tmp_path_factory):
    """By name: the check's answer for each of the configs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTFT_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {name: check.supported(config, RECIPE) for name, config in CONFIGS.items()}


def test_a_llama_is_ours_throughout(supported):
    assert supported["llama"] == check.Supported(check.PARTS, packs=True)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_would_be_wrong_is_left_to_transformers(supported, name):
    support = supported[name]
    left = set(check.PARTS) - set(support.parts) | ({"packing"} if not support.packs else set())
    assert LEFT_OUT[name] <= left
    assert all(part in support.reason for part in left)


def _trained(name, implementation):
    """Losses of two steps of three sequences, longer than the windows, and the adapter after them."""
    architecture = {k: v for k, v in CONFIGS[name].to_dict().items() if v is not None}
    recipe = replace(RECIPE, implementation=implementation)
    cpu = torch.device("cpu")
    loaded = models.load(ModelSpec(name, architecture, 512), find("fp32"), "fp32", recipe, "random", cpu, seed=1)
    generator = torch.Generator().manual_seed(3)
    step = TrainingStep(loaded.model, recipe, "fp32", cpu)
    losses = []
    for _ in range(2):
        sequences = [
            (torch.randint(3, 320, (n,), generator=generator).tolist(), a) for n, a in ((60, 5), (33, 9), (45, 2))
        ]
        losses.append(step.run(sequences, 200).item())
    return losses, [p.detach() for p in loaded.model.parameters() if p.requires_grad], loaded


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_of_packed_sequences_are_those_of_the_plain_step(name):
    losses, adapter, _ = _trained(name, "own")
    plain_losses, plain_adapter, _ = _trained(name, "reference")
    assert losses == pytest.approx(plain_losses, abs=1e-4)
    # Adam's first steps are nearly a sign: where a gradient is all but zero, rounding decides it.
    differing = [((a - b).abs() > 1e-4).float().mean().item() for a, b in zip(adapter, plain_adapter, strict=True)]
    assert max(differing) < 0.02


def test_what_is_left_to_transformers_is_said(supported):
    loaded = _trained("gemma2", "own")[2]
    assert any("left to transformers" in note and "attention" in note for note in loaded.notes)
    assert "transformers=" in loaded.kernels


def test_experts_that_stay_in_16_bits_are_said():
    architecture = {k: v for k, v in CONFIGS["mixtral"].to_dict().items() if v is not None}
    spec, recipe = ModelSpec("mixtral", architecture, 512), replace(RECIPE, lora_targets="attention")
    loaded = models.load(spec, find("int4"), "fp32", recipe, "random", torch.device("cpu"))
    assert any("int4 leaves the routed experts, 69 % of the model" in note for note in loaded.notes)


def test_what_sees_later_tokens_is_refused():
    config = BertConfig(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                        num_attention_heads=4)  # fmt: skip
    with pytest.raises(Unsupported, match="no causal language model"):
        check.check(config, RECIPE)


def test_every_architecture_of_models_yaml_is_ours_throughout():
    specs = {spec.architecture["model_type"]: spec for spec in catalog.load().models.values()}
    specs["a vocabulary of 18"] = catalog.load().find("arc-tiny")
    assert {name: check.check(random_init.config_of(spec), Recipe()) for name, spec in specs.items()} == dict.fromkeys(
        specs, check.Supported(check.PARTS, packs=True)
    )


def test_a_soft_cap_that_random_weights_do_not_reach_is_seen():
    """Gemma 2's own cap of 50 changes nothing at small logits; the copy's is lower."""
    support = check.check(Gemma2Config(num_hidden_layers=4), Recipe())
    assert "attention" not in support.parts


def test_the_answer_is_kept(monkeypatch):
    config = LlamaConfig(**SIZES)
    first = check.supported(config, RECIPE)
    monkeypatch.setattr(check, "check", lambda *_: pytest.fail("checked again"))
    assert check.supported(config, RECIPE) == first


def test_a_copy_has_every_kind_of_layer_and_is_small():
    config = Lfm2Config(layer_types=["conv"] * 5 + ["full_attention"] + ["conv"] * 10, num_hidden_layers=16)
    model = next(small_copies(config))
    assert model.config.layer_types == ["conv"] * 5 + ["full_attention"]
    assert sum(p.numel() for p in model.parameters()) < 1e6


def test_an_update_that_is_too_large_for_the_scale_is_not_lost(monkeypatch):
    """Gradients that are infinite at the first scale: the step is run again at lower ones, and the adapter moves."""
    loaded = _trained("llama", "own")[2]
    step = TrainingStep(loaded.model, RECIPE, "fp16", torch.device("cpu"))
    before = [p.detach().clone() for p in step.params]
    runs, whole = [], step._step

    def overflowing(sequences, tokens_at_once):
        runs.append(step.scaler.get_scale())
        hooks = []
        if len(runs) <= 2:
            hooks = [p.register_hook(lambda g: g * float("inf")) for p in step.params]
        out = whole(sequences, tokens_at_once)
        for hook in hooks:
            hook.remove()
        return out

    monkeypatch.setattr(step, "_step", overflowing)
    step.run([([5, 6, 7, 8], 2)] * 3, 64)
    assert len(runs) == 3 and runs[0] > runs[1] > runs[2]
    assert any(not torch.equal(p, old) for p, old in zip(step.params, before, strict=True))
