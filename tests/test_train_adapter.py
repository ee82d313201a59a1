"""Which modules get an adapter: attention's own, all linear ones, and never what PEFT cannot adapt."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    PhiConfig,
)

from harness.errors import Unsupported
from harness.records.cell import Recipe
from harness.train.adapter import adapted_names, add_adapter, warning

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "phi": PhiConfig(**SIZES),
    "phi3": Phi3Config(**SIZES),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2),
    "falcon": FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
    "llama4": Llama4TextConfig(**SIZES, head_dim=16, num_local_experts=2, intermediate_size_mlp=48),
    "mamba": MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
}


def _adapted(name, targets):
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    model.requires_grad_(False)
    return add_adapter(model, Recipe(lora_targets=targets, lora_r=2))


@pytest.mark.parametrize(
    ("name", "targets", "names"),
    [
        ("llama", "attention", "q_proj k_proj v_proj o_proj"),
        ("llama", "all-linear", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("phi", "attention", "q_proj k_proj v_proj dense"),
        ("phi3", "attention", "o_proj qkv_proj"),  # fused
        ("gpt2", "attention", "c_attn c_proj"),  # Conv1D, and the MLP has a c_proj too
        ("falcon", "attention", "query_key_value dense"),  # a class of its own
        ("llama4", "attention", "q_proj k_proj v_proj o_proj"),
        ("mamba", "all-linear", "in_proj x_proj dt_proj"),  # PEFT forbids out_proj
    ],
)
def test_adapted_modules(name, targets, names):
    model = _adapted(name, targets)
    assert adapted_names(model) == names
    assert warning(model, Recipe(lora_targets=targets)) == ""
    assert model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.requires_grad


def test_a_module_of_the_same_name_outside_attention_has_none():
    names = [name for name, module in _adapted("gpt2", "attention").named_modules() if hasattr(module, "lora_A")]
    assert len(names) == 4 and all(".attn." in name for name in names)


def test_a_router_that_gives_more_than_a_product_has_none():
    model = _adapted("llama4", "all-linear")
    assert "router" not in adapted_names(model)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()


def test_a_model_without_attention_is_refused_by_name():
    with pytest.raises(Unsupported, match="all-linear"):
        _adapted("mamba", "attention")


def test_an_output_projection_alone_is_warned_of():
    model = torch.nn.ModuleDict({"self_attn": torch.nn.ModuleDict({"o_proj": torch.nn.Identity()})})
    model["self_attn"]["o_proj"].lora_A = True
    assert "o_proj alone" in warning(model, Recipe(lora_targets="attention"))
    assert warning(model, Recipe(lora_targets="all-linear")) == ""
