"""A few narrow layers of a model's own config, every kind of layer among them: what takes seconds to check."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from harness.train.compat import quiet

WINDOW = 16  # tokens of every window and chunk, so that short sequences pass it
# Sizes of the copy under the names that configs give them; counts of key and value heads keep their ratio.
_SIZES: dict[str, int] = {}
for _size, _names in (
    (320, "vocab_size decoder_vocab_size vocab_size_per_layer_input encoder_hash_byte_group_vocab "
    "ngram_vocab_size_base"),
    (64, "hidden_size n_embd d_model dim emb_dim embedding_size embedding_dim word_embed_proj_dim lru_width "
    "hidden_size_global ple_embed_dim backbone_hidden_size vision_output_dim projector_input_dim projector_output_dim "
    "pronunciation_embed_dim shape_embed_dim"),
    (128, "attention_hidden_size mamba_d_ssm"),
    (96, "intermediate_size n_inner ffn_dim ffn_hidden_size dim_ff d_inner decoder_ffn_dim encoder_ffn_dim "
    "feed_forward_size dense_intermediate_size intermediate_size_mlp"),
    (48, "shared_expert_intermediate_size moe_intermediate_size expert_ffn_hidden_size mlp_only_intermediate_size "
    "shared_intermediate_size moe_shared_expert_intermediate_size shared_experts_intermediate_size"),
    (32, "q_lora_rank attention_head_dim qk_head_dim"),
    (16, "index_n_heads query_pre_attn_scalar head_dim d_head dim_head attention_head_size kv_channels kv_lora_rank "
    "qk_nope_head_dim qk_rope_head_dim v_head_dim index_head_dim indexer_head_dim linear_key_head_dim "
    "linear_value_head_dim linear_head_dim swa_head_dim swa_v_head_dim mamba_d_state state_size ssm_state_size "
    "mamba_head_dim mamba_headdim mamba_d_head mamba_dt_rank time_step_rank o_lora_rank adapter_rank "
    "router_hidden_size hidden_size_per_layer_input laurel_rank gated_norm_rank"),
    (8, "rotary_dim mamba_n_heads mamba_num_heads n_mamba_heads"),
    (4, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
    "num_decoder_attention_heads num_encoder_attention_heads num_local_experts num_experts n_routed_experts "
    "moe_num_experts linear_num_heads linear_num_key_heads indexer_n_heads swa_num_attention_heads zero_expert_num"),
    (2, "kv_n_heads num_experts_per_tok num_experts_per_token moe_top_k moe_k moe_topk"),
    (1, "n_group topk_group num_expert_group n_groups mamba_n_groups mamba_ngroups"),
    # Chunks, blocks and numbers of tokens chosen: short, so that the sequences of the check pass them.
    (16, "chunk_size mamba_chunk_size block_size index_topk index_block_size"),
    (2, "index_topk_blocks"),
):  # fmt: skip
    _SIZES |= dict.fromkeys(_names.split(), _size)
# Counts of heads that share another count's heads: equal to it, or half of it.
_SHARED = {
    "num_key_value_heads": "num_attention_heads", "num_kv_heads": "num_attention_heads",
    "linear_num_value_heads": "linear_num_key_heads", "swa_num_key_value_heads": "swa_num_attention_heads",
}  # fmt: skip
_STATE_HEADS = (("mamba_n_heads", "mamba_d_head"), ("n_mamba_heads", "mamba_headdim"), ("num_heads", "head_dim"))
_WINDOWS = (
    "sliding_window", "attention_chunk_size", "attention_window_size", "window_size", "local_window", "local_attention",
    "sliding_window_size", "local_attention_window_len",
)  # fmt: skip
# Limits of scores, logits and activations: low, so that a step without them differs.
_LIMITS = {
    "attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0, "logits_soft_cap": 2.0, "output_logit_soft_cap": 2.0,
    "swiglu_limit": 0.5, "clip_qkv": 0.5,
}  # fmt: skip
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
_LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers", "encoder_layers",
    "num_encoder_layers", "depth",
)  # fmt: skip
_ROPE_LIMIT = 3 * WINDOW + WINDOW // 2  # between the lengths of the two sequences of the check
_LOADING = ("dtype", "torch_dtype", "transformers_version", "quantization_config", "architectures")
_MOST_PARAMS = 2e8  # of a copy: 0.8 GB


def small_copies(config: transformers.PretrainedConfig) -> Iterator[Any]:
    """fp32 models on the CPU of the config's kinds of layers, with random weights, the same at every call.

    First narrow ones, then one as wide as the config; what cannot be built, does not run, or is too large, is left out.
    """
    for small in _configs(config):
        try:
            with quiet(), torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(small).parameters())
            if size <= _MOST_PARAMS:
                torch.manual_seed(0)
                with quiet(), torch.no_grad():
                    model = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()
                    ids = torch.arange(3 * WINDOW)[None] % model.get_input_embeddings().weight.shape[0]
                    model(input_ids=ids, use_cache=False)
                yield model
        except Exception:  # a library's checks of sizes raise whatever they like
            continue


def _configs(config: Any) -> Iterator[Any]:
    """Copies of `config`, the smallest first: narrow ones with ever more layers, then one of its width."""
    try:
        kept = layers_to_keep(config)
    except Exception:
        return
    # Some architectures share weights between layers further on, or count their layers in parts.
    for narrow, layers, only_fields in (
        (True, kept, False), (True, kept, True), (True, 3 * kept, True), (True, None, True), (False, kept, False),
    ):  # fmt: skip
        for whole in (config, config.get_text_config(decoder=True)):
            try:
                yield _cut(whole, narrow, layers, only_fields)
            except Exception:
                continue
            if whole is config.get_text_config(decoder=True):
                break


def bare(config: Any) -> dict[str, Any]:
    """The config's values, without what says where a model came from and how it is loaded."""
    return {
        name: value for name, value in config.to_dict().items() if not name.startswith("_") and name not in _LOADING
    }


def _cut(config: Any, narrow: bool, layers: int | None, only_fields: bool) -> Any:
    """A copy of `config` with the first `layers` layers (None for all), short windows and, if `narrow`, few channels.

    With `only_fields` it is made of what the class takes, without what it computes from that.
    """
    text = config.get_text_config(decoder=True)
    raw = bare(config)
    if only_fields and dataclasses.is_dataclass(config):
        names = {field.name for field in dataclasses.fields(config)} | {"per_layer_config"}
        raw = {name: value for name, value in raw.items() if name in names}
    made = copy.deepcopy(raw)
    # Nested configs; only the text's decides how many layers are kept.
    nested = {name: value for name, value in vars(config).items() if isinstance(value, transformers.PretrainedConfig)}
    for name, value in nested.items():
        if name in made:
            count = layers if value is text else 2
            made[name] = {**_cut(value, narrow, count, only_fields).to_dict(), "model_type": value.model_type}
    made |= _small_sizes(raw, narrow)
    _keep_layers(raw, made, layers)
    for rope in (value for value in made.values() if isinstance(value, dict) and "rope_type" in value):
        _shorten_rope(rope, made)
    if isinstance(made.get("original_max_position_embeddings"), int):
        made["original_max_position_embeddings"] = _ROPE_LIMIT
    return type(config).from_dict(made)


def _small_sizes(raw: dict[str, Any], narrow: bool) -> dict[str, Any]:
    """What of `raw` gets another value: windows, limits and, if `narrow`, all sizes."""
    windows: dict[str, Any] = {name: WINDOW for name in _WINDOWS if type(raw.get(name)) is int and raw[name] > WINDOW}
    windows |= {name: limit for name, limit in _LIMITS.items() if raw.get(name)}
    if not narrow:
        return windows
    sizes: dict[str, Any] = {
        name: size for name, size in _SIZES.items() if type(raw.get(name)) is int and raw[name] > size
    }
    for name, of in _SHARED.items():
        of = of if of in raw else "n_heads"
        count, shared_by = raw.get(name), raw.get(of)
        if type(count) is int and type(shared_by) is int and of in sizes:
            sizes[name] = sizes[of] if count >= shared_by else 1 if count == 1 else 2
    made = raw | sizes
    for heads, width in _STATE_HEADS:  # as many heads as fill the widened channels
        if all(type(made.get(name)) is int for name in (heads, width, "hidden_size")) and (
            heads != "num_heads" or "state_size" in raw
        ):
            widened = made["hidden_size"] * raw.get("mamba_expand", raw.get("expand", 2))
            sizes[heads] = max(1, made.get("mamba_d_ssm") or widened) // made[width]
    if type(raw.get("indexer_budget")) is int:
        sizes["indexer_budget"] = 4 * raw["indexer_compress_ratio"]
    if "vocab_size" in sizes:  # tokens beyond the cut vocabulary are named by configs too
        sizes |= {name: i for i, name in enumerate(_TOKENS) if raw.get(name) is not None}
    if isinstance(raw.get("compress_rates"), dict):
        sizes["compress_rates"] = {kind: min(rate, WINDOW) for kind, rate in raw["compress_rates"].items()}
    if isinstance(raw.get("intermediate_size"), list):
        sizes["intermediate_size"] = [96] * len(raw["intermediate_size"])
    return sizes | windows


def _keep_layers(raw: dict[str, Any], made: dict[str, Any], layers: int | None) -> None:
    """Cuts `made` to its first `layers` layers: the counts, what is said per layer, and settings of single layers."""
    counts = [name for name in _LAYERS if type(raw.get(name)) is int]
    before = raw[counts[0]] if counts else 0
    after = min(layers, before) if layers is not None and before else before
    # A decoder with more layers than its encoder keeps more: transformers sizes some caches by the latter.
    encoder = raw.get("encoder_layers", raw.get("num_encoder_layers"))
    for name in counts:
        more = "decoder" in name and type(encoder) is int and raw[name] > encoder
        made[name] = min(raw[name], after + more)
    for name, value in raw.items():
        if isinstance(value, list) and len(value) == before and before > 1:
            made[name] = made[name][:after]
    # Settings of single layers are as much larger than the others' as they were, or the same.
    if isinstance(single := raw.get("per_layer_config"), dict):
        made["per_layer_config"] = {
            i: {name: _as_before(name, value, raw, made) for name, value in settings.items()}
            for i, settings in single.items()
            if int(i) < after
        }


def _as_before(name: str, value: Any, raw: dict[str, Any], made: dict[str, Any]) -> Any:
    if type(value) is not int or type(raw.get(name)) is not int or not raw[name]:
        return min(value, _SIZES[name]) if type(value) is int and name in _SIZES and made != raw else value
    return max(1, round(value / raw[name] * made[name]))


def _shorten_rope(rope: dict[str, Any], sizes: dict[str, Any]) -> None:
    """Where a rotary embedding depends on the length, its limit lies between the two sequences that are packed."""
    if "original_max_position_embeddings" in rope:
        rope["original_max_position_embeddings"] = _ROPE_LIMIT
    if "hidden_size" not in sizes:
        return
    head_dim = sizes.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]
    pairs = int(head_dim * rope.get("partial_rotary_factor", sizes.get("partial_rotary_factor") or 1.0)) // 2
    for name, value in rope.items():
        if isinstance(value, list):
            rope[name] = value[:pairs]


def layers_to_keep(config: Any) -> int:
    """How many of the first layers show every kind of layer: modules, their classes and their own settings."""
    with quiet(), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    count = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1]
    layers = next((m for m in stacks if len(m) == count), stacks[0] if stacks else torch.nn.ModuleList())
    kinds = [_kind(layer) for layer in layers]
    return max((kinds.index(kind) + 1 for kind in set(kinds)), default=len(kinds)) if len(set(kinds)) > 1 else 2


def _kind(layer: torch.nn.Module) -> tuple:
    """What tells layers apart: the modules in it by name and class, and the settings that they hold."""
    return tuple((name, type(module).__name__, _settings(module)) for name, module in layer.named_modules())


def _settings(module: torch.nn.Module) -> tuple:
    held = {k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str) and k[0] != "_"}
    return tuple(sorted((k, str(v)) for k, v in held.items() if k not in ("layer_idx", "training")))
