"""A tiny config of every model type for causal language models that transformers knows.

General rules by the names that configs give to sizes, and a small table of what single types need besides. The rules
are the zoo's own: harness.train.small_copy, which the harness checks by, is not used.
"""

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCAB, WINDOW, CONTEXT = 320, 12, 512
LAYERS = 4
# Sizes by name; what a config does not have, or has as None, stays as it is.
_SIZES: dict[str, Any] = {}
for _size, _names in (
    (VOCAB, "vocab_size vocab_size_per_layer_input"),
    (
        64,
        "hidden_size n_embd d_model dim emb_dim embedding_size word_embed_proj_dim attention_hidden_size lru_width "
        "embedding_dim linear_hidden_size pronunciation_embed_dim shape_embed_dim backbone_hidden_size ple_embed_dim",
    ),
    (
        96,
        "intermediate_size n_inner ffn_dim ffn_hidden_size dim_ff d_inner decoder_ffn_dim encoder_ffn_dim "
        "feed_forward_size dense_intermediate_size intermediate_size_mlp",
    ),
    (
        48,
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
        "mlp_only_intermediate_size moe_shared_expert_intermediate_size shared_experts_intermediate_size",
    ),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers num_blocks"),
    (
        2,
        "encoder_layers num_encoder_layers num_experts_per_tok num_experts_per_token moe_top_k moe_topk moe_k "
        "mamba_d_conv hc_lowrank",
    ),
    (
        4,
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
        "num_decoder_attention_heads num_encoder_attention_heads num_local_experts num_experts n_routed_experts "
        "moe_num_experts n_mamba_heads laurel_rank linear_num_heads linear_num_key_heads gated_norm_rank",
    ),
    (
        # An indexer's scores are zero where all its heads' are: with few heads many tokens have the same score, and
        # which of them are chosen depends on the length of the row, in transformers' own packs too. (With a leaky relu
        # instead, 4 heads are right in axk2, deepseek_v32, glm_moe_dsa and hy_v4.)
        16,
        "index_n_heads head_dim d_head dim_head attention_head_dim attention_head_size kv_channels qk_rope_head_dim "
        "qk_nope_head_dim v_head_dim kv_lora_rank index_head_dim linear_key_head_dim linear_value_head_dim "
        "linear_head_dim mamba_d_state state_size ssm_state_size hidden_size_per_layer_input router_hidden_size "
        "time_step_rank mamba_dt_rank chunk_size mamba_chunk_size block_size rotary_dim o_lora_rank adapter_rank "
        "mamba_head_dim mamba_headdim mamba_d_head",
    ),
    (32, "q_lora_rank"),
    (8, "index_topk mamba_n_heads mamba_num_heads linear_num_value_heads"),
    (1, "n_group topk_group num_expert_group n_groups mamba_n_groups"),
    (
        WINDOW,
        "sliding_window attention_chunk_size attention_window_size window_size local_window sliding_window_size "
        "local_attention local_attention_window_len",
    ),
    (
        CONTEXT,
        "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length max_target_positions",
    ),
):
    _SIZES |= dict.fromkeys(_names.split(), _size)
_LAYER_LISTS = ("layer_types", "mlp_layer_types")
# What single types need: settings of the type's own, applied over the rules.
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_CONV = ["conv", "full_attention"] * 2
_HYBRID = ["linear_attention", "hybrid"] * 2
_QSA = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 16,
    "indexer_compress_ratio": 4, "ngram_vocab_size_base": 500,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2, "first_k_dense_replace": 1},
    "bamba": {"attn_layer_indices": [1, 3]},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "blt": {
        "encoder_hash_byte_group_vocab": 50, "encoder_config": {"hidden_size_global": 64},
        "decoder_config": {"hidden_size_global": 64},
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "deepseek_v4": {"head_dim": 32, "partial_rotary_factor": 0.5},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_audio_encoder": {"adapter_out_dim": 64, "adapter_input_size": 64},
    "dots3_note_text": {
        "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_kv_lora_rank": 16, "swa_q_lora_rank": 32,
        "swa_qk_nope_head_dim": 16, "swa_qk_rope_head_dim": 16, "swa_v_head_dim": 16, "swa_head_dim": 32,
    },
    "dots3_note_vision_encoder": {"adapter_in_dim": 64, "adapter_out_dim": 64, "per_layer_config": {}},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2,
        "intermediate_size": 96, "activation_sparsity_pattern": [0.5, 0.0, 0.5, 0.0],
    },
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": LAYERS, "num_hidden_layers": LAYERS,
        }
    },
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": LAYERS},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
    "lfm2": {"layer_types": _CONV, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": _CONV, "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 16, "num_layers": 2, "num_hidden_layers": 4, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16, "hidden_size": 64},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16},
    "qwen4_exp_text": _QSA,
    "reformer": {
        "axial_pos_embds": False, "is_decoder": True, "attn_layers": ["local", "lsh"] * 2,
        "local_attn_chunk_length": 16, "lsh_attn_chunk_length": 16,
    },
    "xlm": {"causal": True},
    "xlnet": {"attn_type": "uni"},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": _HYBRID, "num_hidden_layers": LAYERS, "attention_head_dim": 32, "mamba_dt_rank": 4,
              "attention_hidden_size": 128},
    "zamba2": {"layers_block_type": _HYBRID, "num_hidden_layers": LAYERS},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def tiny(model_type: str, **settings: Any) -> PretrainedConfig:
    """The tiny config of `model_type`; `settings` win over the rules and the table."""
    return _tiny(CONFIG_MAPPING[model_type], OWN.get(model_type, {}) | settings)


# What transformers' own defaults leave out, so that no model can be built from them.
_REAL: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 20,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "dbrx": {"attn_config": {"kv_n_heads": 8, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
        }
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 16, "moe_topk": 2},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 16, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 2048,
        "indexer_compress_ratio": 16,
    },
    "xlm": {"causal": True},
    "xlnet": {"attn_type": "uni"},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip
_REAL["qwen4_exp"] = {"text_config": {"model_type": "qwen4_exp_text"} | _REAL["qwen4_exp_text"]}


def real(model_type: str) -> PretrainedConfig:
    """The config of `model_type` in the size that its class has by default: a model as users have it."""
    config = CONFIG_MAPPING[model_type](**_REAL.get(model_type, {}))
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    return config


def _tiny(cls: type[PretrainedConfig], settings: dict[str, Any]) -> PretrainedConfig:
    fields = {field.name for field in dataclasses.fields(cls)}
    try:
        raw = cls().to_dict()
    except Exception:  # a nested config must be of another kind
        raw = cls(**settings).to_dict()
    made: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in fields:
            continue
        if isinstance(value, dict) and (inner := _config_class(cls, name, value)):
            made[name] = _tiny(inner, OWN.get(inner.model_type, {}) | settings.get(name, {})).to_dict()
        elif name in _SIZES and type(value) is int:
            made[name] = _SIZES[name]
        elif type(value) is float and ("drop" in name or "jitter" in name):
            made[name] = 0.0
    mla = "qk_rope_head_dim" in raw
    heads = made.get("num_attention_heads", 4)
    if type(key_heads := raw.get("num_key_value_heads")) is int and "num_key_value_heads" in fields:
        made["num_key_value_heads"] = heads if mla or key_heads == raw.get("num_attention_heads") else 2
    if mla and raw.get("head_dim") != raw.get("v_head_dim"):
        made.pop("head_dim", None)
    # Every kind of layer once, then the last one again.
    lists = {name: raw[name] for name in _LAYER_LISTS if isinstance(raw.get(name), list) and name in fields}
    for name, kinds in lists.items():
        distinct = list(dict.fromkeys(kinds))
        made[name] = (distinct * LAYERS)[:LAYERS] if len(distinct) > 1 else [distinct[0]] * LAYERS
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if name in fields:
            made[name] = ("pad_token_id", "bos_token_id", "eos_token_id").index(name)
    if raw.get("is_decoder") is False:
        made["is_decoder"] = True
    nested = [name for name, value in raw.items() if isinstance(value, dict) and _config_class(cls, name, value)]
    return cls(**(made | {name: value for name, value in settings.items() if name not in nested}))


def _config_class(cls: type[PretrainedConfig], name: str, value: dict[str, Any]) -> type[PretrainedConfig] | None:
    """The class of the nested config `value`; None for a dictionary of another kind."""
    if value.get("model_type"):
        return CONFIG_MAPPING[value["model_type"]]
    inner = cls.sub_configs.get(name)
    return inner if inner is not None and inner.__name__ != "AutoConfig" else None
