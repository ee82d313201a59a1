"""Greedy decoding of every kind of architecture, against argmax over the whole sequence again and again."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness.errors import UserError
from harness.train.compat import import_peft, quiet
from harness.train.ops import attention
from harness.train.special_tokens import end_ids, must_fit
from harness.tune import decode, decode_check
from harness.tune.decode_steps import ANY, ONE, Way, plain_attention

END = 2
_SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
          "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
          "eos_token_id": END}  # fmt: skip
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8,
          "shared_expert_intermediate_size": 24}  # fmt: skip
_OLD = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "eos_token_id": END}
ARCHITECTURES = {
    "llama": _SIZES,
    "gemma2": {**_SIZES, "head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 1},
    "gemma3_text": {**_SIZES, "head_dim": 8, "sliding_window": 6},
    "gpt_oss": {**_SIZES, "head_dim": 8, "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_next": {**_SIZES, **_DELTA},
    "jamba": {**_SIZES, "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8, "use_mamba_kernels": False},
    "bamba": {**_SIZES, **_MAMBA2, "attn_layer_indices": [1, 3]},
    "falcon_h1": {**_SIZES, **_MAMBA2, "mamba_d_ssm": 64, "num_hidden_layers": 2},
    "mamba": {"vocab_size": 64, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "eos_token_id": END},
    "mamba2": {"vocab_size": 64, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "eos_token_id": END,
               "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "lfm2": {**_SIZES, "layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "recurrent_gemma": {**_SIZES, "lru_width": 32, "head_dim": 8, "attention_window_size": 6},
    "rwkv": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": END},
    "gpt2": _OLD,
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4, "eos_token_id": END},
    "falcon": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
               "eos_token_id": END},
    "granitemoehybrid": {**_SIZES, **_MAMBA2, "layer_types": ["mamba", "attention"] * 2, "num_local_experts": 4,
                         "num_experts_per_tok": 2, "shared_intermediate_size": 24},
    "deepseek_v3": {**_SIZES, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "n_group": 1, "topk_group": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1},
    "nemotron_h": {**_SIZES, "num_hidden_layers": 3, "layers_block_type": ["mamba", "attention", "mlp"],
                   "head_dim": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1,
                   "chunk_size": 8},
    # transformers sizes this decoder's cache by the encoder.
    "bart": {"vocab_size": 64, "d_model": 32, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 0,
             "bos_token_id": 1, "eos_token_id": END, "is_decoder": True, "is_encoder_decoder": False},
    "mpt": {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "eos_token_id": END},
    "minimax": {**_SIZES, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"] * 2, "block_size": 8,
                "num_local_experts": 4, "num_experts_per_tok": 2},
    "stablelm": _SIZES,
    "phi3": {**_SIZES, "head_dim": 8, "max_position_embeddings": 64, "original_max_position_embeddings": 12,
             "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
                                 "long_factor": [2.0, 4.0, 6.0, 8.0]}},
}  # fmt: skip
STATES = ("qwen3_next", "jamba", "bamba", "falcon_h1", "mamba", "mamba2", "lfm2", "recurrent_gemma", "rwkv",
          "granitemoehybrid", "nemotron_h", "minimax")  # fmt: skip


class Tokens:
    """A tokenizer whose text is its ids."""

    eos_token_id, chat_template = END, None
    added_tokens_decoder = {END: "</s>", 3: "<turn>"}  # noqa: RUF012

    def decode(self, ids):
        return " ".join(map(str, ids))


def _model(name):
    """With weights large enough that where a token stands changes what follows, and an adapter."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **ARCHITECTURES[name])).eval()
    with torch.no_grad():
        for where, parameter in base.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
            if where.endswith("sinks"):
                parameter.normal_(2.0)
    base.requires_grad_(False)
    linear = [where for where, module in base.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    targets = [where for where in linear if not where.endswith(("out_proj", "head"))][:1]
    with quiet():
        return import_peft().get_peft_model(base, import_peft().LoraConfig(r=2, target_modules=targets))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_as_argmax_without_a_cache(name):
    """Prompts of several lengths in one call, with answers beyond every window, and limits that end some rows early."""
    model = _model(name)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(4, 64, (n,), generator=generator).tolist() for n in (9, 3, 20, 9, 14, 9)]
    limits = [12, 7, 12, 3, 12, 12]
    # An end that some rows reach: the token that the first one writes fifth.
    model.eval()
    base = model.get_base_model()
    base.set_attn_implementation("eager")
    written = []
    for prompt, limit in zip(prompts, limits, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(limit):
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        written.append(ids[len(prompt) :])
    assert len({tuple(tokens) for tokens in written}) > 3
    tokens = Tokens()
    tokens.eos_token_id = end = written[0][4]
    tokens.added_tokens_decoder = {end: "</s>"}
    expected = [tokens.decode(ids[: ids.index(end)]) if end in ids else "" for ids in written]
    before = base.config._attn_implementation
    assert decode.greedy(model, tokens, prompts, limits) == expected
    assert base.config._attn_implementation == before
    # The same one row after the other.
    assert [decode.greedy(model, tokens, [p], [n])[0] for p, n in zip(prompts, limits, strict=True)] == expected


@pytest.mark.parametrize("name", STATES)
def test_padding_never_runs_into_a_state(name):
    assert decode_check.way_of(AutoConfig.for_model(name, **ARCHITECTURES[name])).rows != ANY


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "stablelm", "deepseek_v3"])
def test_attention_alone_is_decoded_in_a_static_cache(name):
    assert decode_check.way_of(AutoConfig.for_model(name, **ARCHITECTURES[name])) == Way(
        static=True, gaps=True, grouped=True
    )


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "gemma3_text", "mpt"])
def test_where_attention_counts_columns_none_may_be_empty(name):
    """A window of so many columns, or a bias by their distance."""
    assert decode_check.way_of(AutoConfig.for_model(name, **ARCHITECTURES[name])) == Way(static=True, grouped=True)


def test_the_answer_is_kept(monkeypatch):
    config = AutoConfig.for_model("llama", **{**_SIZES, "vocab_size": 72})
    way = decode_check.way_of(config)
    monkeypatch.setattr(decode_check, "_kept", {})
    monkeypatch.setattr(decode_check, "check", lambda config: pytest.fail("checked again"))
    assert decode_check.way_of(config) == way


def test_what_cannot_be_built_small_is_decoded_the_slow_way(monkeypatch):
    monkeypatch.setattr(decode_check, "small_copies", lambda config: iter(()))
    assert decode_check.check(AutoConfig.for_model("llama", **_SIZES)) == Way(cached=False, rows=ONE)


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "llama"])
def test_attention_is_again_what_it_was(name):
    """Ours for a llama; a capped or sinking one decodes by its own formula, which the kernels do not know."""
    model = _model(name)
    base = model.get_base_model()
    if name == "llama":
        base.set_attn_implementation(attention.NAME)
    before = base.config._attn_implementation
    with plain_attention(model):
        assert base.config._attn_implementation == ("sdpa" if name == "llama" else "eager")
    assert base.config._attn_implementation == before


def test_every_end_of_the_configs_ends_an_answer_if_it_is_no_text():
    """3 is a special token, 5 a piece of text: a config's default may be anything in another tokenizer."""
    model, tokens = _model("llama").get_base_model(), Tokens()
    model.generation_config.eos_token_id = [3, 5]
    assert end_ids(tokens, model) == {END, 3}


def test_a_tokenizer_beyond_the_embedding_is_refused(tokenizer):
    """A token for padding beyond the embedding is none of a prompt's."""
    torch.manual_seed(0)
    for rows, fits in ((len(tokenizer), True), (len(tokenizer) - 1, True), (40, False)):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**_SIZES, "vocab_size": rows}))
        if fits:
            must_fit(tokenizer, model)
        else:
            with pytest.raises(UserError, match="only 40 rows"):
                must_fit(tokenizer, model)
