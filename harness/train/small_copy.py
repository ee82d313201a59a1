"""A few narrow layers of a model's own config, every kind of layer among them: what takes seconds to check."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from harness.train.compat import quiet

WINDOW = 16  # tokens of every window and chunk, so that short sequences pass it
# Sizes of the copy under the names that configs give them; counts of key and value heads keep their ratio.
_SIZES = {
    "vocab_size": 320,
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "dim": 64, "embedding_size": 64, "word_embed_proj_dim": 64,
    "intermediate_size": 96, "n_inner": 96, "ffn_dim": 96, "ffn_hidden_size": 96, "shared_expert_intermediate_size": 48,
    "moe_intermediate_size": 48, "expert_ffn_hidden_size": 48, "mlp_only_intermediate_size": 48,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "head_dim": 16, "num_heads": 4,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_top_k": 2, "moe_k": 2, "moe_topk": 2,
    "n_group": 1, "topk_group": 1,
    "q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
    "lru_width": 64, "index_topk": WINDOW,
}  # fmt: skip
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size", "local_window")
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ROPE_LIMIT = 3 * WINDOW + WINDOW // 2  # between the lengths of the two sequences of the check
_LOADING = ("dtype", "torch_dtype", "transformers_version", "quantization_config", "architectures")
_MOST_PARAMS = 2e8  # of a copy: 0.8 GB


def small_copies(config: transformers.PretrainedConfig) -> Iterator[Any]:
    """fp32 models on the CPU of the config's kinds of layers, with random weights, the same at every call.

    First a narrow one, then one as wide as the config; what cannot be built, or is too large, is left out.
    """
    for narrow in (True, False):
        try:
            small = _cut(config.get_text_config(), narrow)
            with quiet(), torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(small).parameters())
            if size <= _MOST_PARAMS:
                torch.manual_seed(0)
                with quiet():
                    model = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()
                yield model
        except Exception:  # a library's checks of sizes raise whatever they like
            continue


def bare(config: Any) -> dict[str, Any]:
    """The config's values, without what says where a model came from and how it is loaded."""
    return {name: value for name, value in config.to_dict().items() if name[0] != "_" and name not in _LOADING}


def _cut(config: Any, narrow: bool) -> Any:
    """A copy of `config` with the first layers that show every kind, short windows and, if `narrow`, few channels."""
    raw = bare(config)
    layers = next(name for name in _LAYERS if name in raw)
    before, after = raw[layers], layers_to_keep(config)
    sizes = {
        name: size for name, size in _SIZES.items() if narrow and isinstance(raw.get(name), int) and raw[name] > size
    }
    heads, key_heads = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
    if "num_attention_heads" in sizes and isinstance(key_heads, int) and isinstance(heads, int):
        sizes["num_key_value_heads"] = 4 if key_heads >= heads else 1 if key_heads == 1 else 2
    if "vocab_size" in sizes:  # tokens beyond the cut vocabulary are named by configs too
        sizes |= {name: i for i, name in enumerate(_TOKENS) if raw.get(name) is not None}
    windows = {name: WINDOW for name in _WINDOWS if isinstance(raw.get(name), int) and raw[name] > WINDOW}
    # What is said per layer is said for the first ones.
    lists = {name: value[:after] for name, value in raw.items() if isinstance(value, list) and len(value) == before}
    made = copy.deepcopy(raw) | lists | sizes | windows | {layers: after}
    for rope in (value for value in made.values() if isinstance(value, dict) and "rope_type" in value):
        _shorten_rope(rope, made)
    if isinstance(made.get("original_max_position_embeddings"), int):
        made["original_max_position_embeddings"] = _ROPE_LIMIT
    return type(config).from_dict(made)


def _shorten_rope(rope: dict[str, Any], sizes: dict[str, Any]) -> None:
    """Where a rotary embedding depends on the length, its limit lies between the two sequences that are packed."""
    if "original_max_position_embeddings" in rope:
        rope["original_max_position_embeddings"] = _ROPE_LIMIT
    head_dim = sizes.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]
    pairs = int(head_dim * rope.get("partial_rotary_factor", sizes.get("partial_rotary_factor") or 1.0)) // 2
    for name, value in rope.items():
        if isinstance(value, list):
            rope[name] = value[:pairs]


def layers_to_keep(config: Any) -> int:
    """How many of the first layers show every kind of layer: modules, their classes and their own settings."""
    with quiet(), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    layers = next(
        (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1), torch.nn.ModuleList()
    )
    kinds = [_kind(layer) for layer in layers]
    return max((kinds.index(kind) + 1 for kind in set(kinds)), default=len(kinds)) if len(set(kinds)) > 1 else 2


def _kind(layer: torch.nn.Module) -> tuple:
    """What tells layers apart: the modules in it by name and class, and the settings that they hold."""
    return tuple((name, type(module).__name__, _settings(module)) for name, module in layer.named_modules())


def _settings(module: torch.nn.Module) -> tuple:
    held = {k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str) and k[0] != "_"}
    return tuple(sorted((k, str(v)) for k, v in held.items() if k not in ("layer_idx", "training")))
