"""Which modules get an adapter: attention's own, all linear ones, and never what PEFT cannot adapt."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    DeepseekV3Config,
    FalconConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    Phi3Config,
    PhiConfig,
    RecurrentGemmaConfig,
)

from harness.errors import Unsupported
from harness.records.cell import Recipe
from harness.train import adapter
from harness.train.adapter import adapted_names, add_adapter

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "phi": PhiConfig(**SIZES),
    "phi3": Phi3Config(**SIZES),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2),
    "falcon": FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
    "llama4": Llama4TextConfig(**SIZES, head_dim=16, num_local_experts=2, intermediate_size_mlp=48),
    "mpt": MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2),
    "recurrent_gemma": RecurrentGemmaConfig(**SIZES, head_dim=16, lru_width=32, block_types=["recurrent", "attention"]),
    "deepseek_v3": DeepseekV3Config(
        **SIZES,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=4,
        first_k_dense_replace=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
    ),
    "bamba": BambaConfig(**SIZES, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, attn_layer_indices=[1]),
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
        ("deepseek_v3", "attention", "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj"),  # latent attention
        ("mpt", "attention", "Wqkv out_proj"),
        ("recurrent_gemma", "attention", "q_proj k_proj v_proj o_proj"),  # known by the class alone
        ("llama", "v_proj gate_proj", "v_proj gate_proj"),
        ("gpt2", "attn.c_proj", "c_proj"),
    ],
)
def test_adapted_modules(name, targets, names):
    model = _adapted(name, targets)
    assert adapted_names(model) == names
    assert model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.requires_grad


def test_a_module_of_the_same_name_outside_attention_has_none():
    adapted = {name: m for name, m in _adapted("gpt2", "attention").named_modules() if hasattr(m, "lora_A")}
    assert len(adapted) == 4 and all(".attn." in name for name in adapted)
    assert all(module.fan_in_fan_out for module in adapted.values())  # Conv1D's weight is [in, out]


def test_a_router_that_gives_more_than_a_product_has_none():
    model = _adapted("llama4", "all-linear")
    assert "router" not in adapted_names(model)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()


def test_a_model_without_attention_is_refused_by_name():
    with pytest.raises(Unsupported, match="all-linear"):
        _adapted("mamba", "attention")


def test_a_projection_alone_is_warned_of():
    """What "attention" leaves out is said, as where the queries are a tensor of the experts' (jetmoe)."""
    model = torch.nn.ModuleDict({"self_attn": torch.nn.ModuleDict({"o_proj": torch.nn.Identity()})})
    model["self_attn"]["o_proj"].lora_A = True
    assert adapter.notes(model, Recipe()) == (
        "of attention o_proj alone is adapted here; --lora-targets all-linear adapts more",
    )


@pytest.mark.parametrize(
    ("name", "targets", "parts"),
    [
        ("llama", "attention", []),
        ("llama", "all-linear", []),
        ("llama", "v_proj", []),
        ("deepseek_v3", "attention", []),
        ("mamba", "all-linear", ["cannot adapt them or they see no text: out_proj"]),
        ("llama4", "all-linear", ["they see no text: router", "routed experts"]),
    ],
)
def test_what_is_left_out_is_said(name, targets, parts):
    said = adapter.notes(_adapted(name, targets), Recipe(lora_targets=targets))
    assert len(said) == len(parts) and all(part in note for part, note in zip(parts, said, strict=True))


def test_names_that_are_no_layers_are_refused_with_those_that_are():
    with pytest.raises(Unsupported, match=r"^no layer called w_proj that PEFT adapts; there are: q_proj k_proj .*down"):
        _adapted("llama", "v_proj w_proj")
    with pytest.raises(Unsupported, match="no layer called out_proj"):
        _adapted("mamba", "in_proj out_proj")


def test_a_part_of_what_experts_hold_in_one_tensor_is_refused_with_a_sentence():
    with pytest.raises(Unsupported, match=r"PEFT cannot adapt gate_proj: .* up_proj"):
        _adapted("deepseek_v3", "gate_proj")


def test_experts_with_an_adapter_are_not_called_left_out():
    """PEFT adapts them where the shared experts' projections have the names of theirs."""
    model = _adapted("deepseek_v3", "all-linear")
    assert "experts" in adapted_names(model).split()
    assert not any("routed experts" in note for note in adapter.notes(model, Recipe(lora_targets="all-linear")))


def test_what_a_kernel_reads_itself_has_no_adapter():
    """bamba's fused kernel takes the matrix of out_proj: an adapter there would train nothing."""
    names = adapted_names(_adapted("bamba", "all-linear")).split()
    assert "in_proj" in names
    assert "out_proj" not in names
