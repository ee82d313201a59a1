"""A model in a GGUF file: its shape as a config.json has it, how its weights are quantised, and what is refused.

Only architectures are taken whose tensors transformers reads whole (tests/test_train_gguf_weights.py compares logits),
and only files that hold exactly these tensors: transformers leaves out what it does not know, such as the factors that
stretch Llama 3's rotary angles, and would compute another model.
"""

import importlib.util
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from harness import limits
from harness.catalog import fingerprint, gguf_header
from harness.catalog.gguf_header import Header
from harness.errors import UserError
from harness.text import quoted

SUFFIX = ".gguf"
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_LAYER = tuple(f"{name}.weight" for name in (*_MATRICES, "attn_norm", "ffn_norm"))
# Architectures by llama.cpp's names, which are transformers' types too -> the tensors of a layer.
LAYER_TENSORS = {
    "llama": _LAYER,
    "qwen2": (*_LAYER, "attn_q.bias", "attn_k.bias", "attn_v.bias"),
    "qwen3": (*_LAYER, "attn_q_norm.weight", "attn_k_norm.weight"),
}
# llama.cpp's keys -> those of a config.json.
_KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
}
_RANGES = {"num_hidden_layers": limits.Layers, "max_position_embeddings": limits.Count}
_REALS = {"rope.freq_base": "rope_theta", "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
# What scales scores or sums in other models of these names.
_SCALES = ("attention.scale", "logit_scale", "residual_scale", "embedding_scale", "attention.clamp_kqv")
_TOKENIZERS = ("gpt2", "llama")  # byte-level, and sentencepiece


@dataclass(frozen=True)
class GgufModel:
    """`config` is the model's shape under the keys of a config.json, `quantization` the ggml type, as "Q4_1", that most
    of its values have, and `digest` tells it from another file under the same path (harness.catalog.fingerprint)."""

    config: dict[str, Any]
    quantization: str
    digest: str


def read(path: Path) -> GgufModel:
    """The model in the file at `path`; little but its header is read, and neither torch nor transformers is loaded.

    Raises UserError, with the remedy, for what is no GGUF or not whole, for an architecture or tensors that would not
    be read right, for a file without a tokenizer, and where the package gguf is missing.
    """
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name a GGUF file that is here") from None


@lru_cache(maxsize=8)
def _read(path: Path, modified: int, size: int) -> GgufModel:
    try:
        header = gguf_header.read(path)
    except gguf_header.BadHeader as problem:
        raise UserError(f"{path}: is no whole GGUF file ({problem}); download it again, or name another") from None
    try:
        config = _config(header)
        _check_tensors(header, config)
        _check_tokenizer(header, config)
    except _Refused as problem:
        raise UserError(f"{path}: {problem}; name a folder with safetensors instead") from None
    must_have_package(path)
    quantization = _quantization(path, header)
    digest = fingerprint.of_file(path, header.start, (entry.offset for entry in header.tensors))
    return GgufModel(config, quantization, digest)


def must_have_package(path: Path) -> None:
    """Raises UserError where the package gguf, by which transformers reads such weights, is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{path}: weights of a GGUF are read with the package gguf, which is missing: pip install gguf")


class _Refused(ValueError):
    """Why a whole GGUF is not taken."""


def _config(header: Header) -> dict[str, Any]:
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in LAYER_TENSORS:
        raise _Refused(
            f"its architecture, {quoted(architecture)}, is not read from GGUF ({', '.join(LAYER_TENSORS)} are)"
        )

    def value(key: str) -> Any:
        return metadata.get(f"{architecture}.{key}")

    # What transformers does not read would be left out of the model.
    if value("expert_count"):
        raise _Refused("it routes tokens to experts, which are not read from GGUF")
    _check_scales(value)
    config: dict[str, Any] = {"model_type": architecture}
    for key, name in _KEYS.items():
        number = value(key)
        if key == "attention.head_count_kv" and number is None:
            number = value("attention.head_count")
        try:
            config[name] = limits.within(f"its {architecture}.{key}", number, _RANGES.get(name, limits.Width))
        except UserError as problem:
            raise _Refused(str(problem)) from None
        if config[name] is None:
            raise _Refused(f"it does not say its {architecture}.{key}")
    for key, name in _REALS.items():
        number = value(key)
        if number is None and name == "rope_theta":
            continue  # llama.cpp and transformers take 10,000
        if not isinstance(number, float) or not 0 < number < math.inf:
            raise _Refused(f"its {architecture}.{key} is {quoted(number)}, and no number above 0")
        config[name] = number
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_dim = value("attention.key_length") or value("rope.dimension_count") or width // heads
    if type(head_dim) is not int or head_dim < 1 or heads % config["num_key_value_heads"]:
        raise _Refused("its heads do not fit each other")
    if value("rope.dimension_count") not in (None, head_dim):
        raise _Refused("its rotary angles are of a part of each head, which is not read from GGUF")
    names = {entry.name: entry for entry in header.tensors}
    if "token_embd.weight" not in names:
        raise _Refused("it has no tensor token_embd.weight")
    ids = {name: metadata.get(f"tokenizer.ggml.{key}") for key, name in _IDS.items()}
    return config | {
        "head_dim": head_dim,
        "vocab_size": names["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in names,
        **{name: number for name, number in ids.items() if type(number) is int},
    }


def _check_scales(value: Callable[[str], Any]) -> None:
    """Raises _Refused where angles, scores or sums are scaled: transformers would leave that out of the model."""
    scaling = value("rope.scaling.type")
    # llama.cpp scales by a factor alone too, linearly.
    factors = [] if scaling == "none" else [value("rope.scaling.factor"), value("rope.scale_linear")]
    if scaling not in (None, "none") or any(factor not in (None, 0, 1) for factor in factors):
        raise _Refused(f"its rotary angles are scaled ({quoted(scaling or 'linear')}), which is not read from GGUF")
    if value("attention.causal") is False:
        raise _Refused("its tokens attend to later ones, which is not read from GGUF")
    for key in _SCALES:
        if value(key) not in (None, 0, 1):
            raise _Refused(f"it has a {key}, which is not read from GGUF")


def _check_tensors(header: Header, config: dict[str, Any]) -> None:
    """Raises _Refused unless the file holds exactly the tensors of its architecture, each in its shape."""
    expected = _shapes(config)
    names = Counter(entry.name for entry in header.tensors)
    if (parts := header.metadata.get("split.count")) not in (None, 0, 1):
        raise _Refused(f"it is one of {quoted(parts)} parts of a model; join them with llama-gguf-split --merge")
    if twice := [name for name, count in names.items() if count > 1]:
        raise _Refused(f"it has the tensor {quoted(twice[0])} twice")
    if strange := sorted(set(names) - set(expected)):
        raise _Refused(f"its tensor {quoted(strange[0])} would be left out, and another model computed")
    if missing := sorted(set(expected) - set(names)):
        raise _Refused(f"it lacks {len(missing)} tensors, as {missing[0]}")
    for entry in header.tensors:
        if entry.shape != expected[entry.name]:
            raise _Refused(f"its tensor {entry.name} is {_by(entry.shape)}, not {_by(expected[entry.name])}")


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of the model and their shapes, [out, in]."""
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    of_layer = {
        "attn_q.weight": (queries, width), "attn_k.weight": (keys, width), "attn_v.weight": (keys, width),
        "attn_output.weight": (width, queries), "ffn_gate.weight": (inner, width), "ffn_up.weight": (inner, width),
        "ffn_down.weight": (width, inner), "attn_norm.weight": (width,), "ffn_norm.weight": (width,),
        "attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,),
        "attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,),
    }  # fmt: skip
    shapes = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (vocabulary, width)
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"blk.{layer}.{name}": of_layer[name] for name in LAYER_TENSORS[config["model_type"]]}
    return shapes


def _check_tokenizer(header: Header, config: dict[str, Any]) -> None:
    tokens, kind = header.metadata.get("tokenizer.ggml.tokens"), header.metadata.get("tokenizer.ggml.model")
    if not isinstance(tokens, int) or not tokens or kind is None:
        raise _Refused("it has no tokenizer")
    if kind not in _TOKENIZERS:
        raise _Refused(f"its tokenizer, {quoted(kind)}, is not read from GGUF ({', '.join(_TOKENIZERS)} are)")
    if tokens > config["vocab_size"]:
        raise _Refused(f"its tokenizer has {tokens} tokens and its embeddings {config['vocab_size']}")
    if not 0 <= config.get("eos_token_id", -1) < tokens:
        raise _Refused("its tokenizer has no end-of-text token")


def _quantization(path: Path, header: Header) -> str:
    """The ggml type of most values. Raises UserError where the file is shorter than its tensors."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    values: Counter[str] = Counter()
    end = 0
    # One tensor after the other, as llama.cpp wants them too: in what overlaps one would have another's values.
    for entry in sorted(header.tensors, key=lambda entry: entry.offset):
        try:
            kind = GGMLQuantizationType(entry.type)
            block, size = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise UserError(
                f"{path}: tensors of ggml's type {entry.type} are not known; install a newer gguf, or name a folder "
                "with safetensors"
            ) from None
        if entry.offset != -(-end // header.alignment) * header.alignment or entry.shape[-1] % block:
            raise UserError(f"{path}: is no whole GGUF file ({entry.name} is out of place); download it again")
        end = entry.offset + prod(entry.shape) // block * size
        if header.start + end > header.size:
            raise UserError(f"{path}: is no whole GGUF file (it ends within {entry.name}); download it again")
        values[kind.name] += prod(entry.shape)
    return values.most_common(1)[0][0]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
