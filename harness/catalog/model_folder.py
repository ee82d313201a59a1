"""A model's config.json, in a folder or on the hub, or its GGUF file, as a ModelSpec.

It is data from elsewhere, none of whose code is run.
"""

from pathlib import Path
from typing import Any

from harness import limits, network
from harness.catalog import folder_name, gguf_model
from harness.catalog.trainable import quantization_of
from harness.errors import UserError, first_line
from harness.files import home_relative, read_json
from harness.records.cell import ModelSpec
from harness.text import quoted, say_once

# Names that configs give to the longest context, the surest first.
WINDOWS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_length", "max_seq_len",
    "seq_length", "context_length", "model_max_length", "max_target_positions",
)  # fmt: skip
_MOST_BYTES = 1 << 24  # of a config.json
_CODE = ("auto_map", "custom_pipelines")
_QUANTIZED = "quantization_config"
_KERNELS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")
_SIZES = {
    "num_hidden_layers": limits.Layers, "num_layers": limits.Layers, "n_layer": limits.Layers,
    "hidden_size": limits.Width, "intermediate_size": limits.Width, "n_embd": limits.Width,
    "vocab_size": limits.Vocabulary, "num_attention_heads": limits.Heads, "num_key_value_heads": limits.Heads,
}  # fmt: skip


def from_folder(folder: Path, window: int | None = None) -> ModelSpec:
    """The model whose config.json lies in `folder`; `window` is its longest context where the file says none.

    Raises UserError where there is none that can be read, and WindowUnknown where no window is found.
    """
    path = folder / "config.json"
    try:
        # Any JSON file could lie there; model_type is what transformers builds a model by.
        config = read_json(path, _MOST_BYTES)
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError("it names no model_type")
    except OSError as problem:
        raise UserError(f"{folder}: no config.json that can be read ({problem.strerror})") from None
    except ValueError as problem:
        raise UserError(f"{path}: is no model's config.json ({first_line(problem)})") from None
    text = config.get("text_config")
    quantized = quantization_of(config) or (quantization_of(text) if isinstance(text, dict) else None)
    config = _without_code(config, path)
    _check_sizes(config, path)
    return ModelSpec(
        folder_name.name_of(folder.resolve(), config),
        config,
        _max_context(config, path) or _given(window, path),
        path=home_relative(folder.resolve()),
        quantized=quantized,
    )


def from_gguf(file: Path) -> ModelSpec:
    """The model in a GGUF file, called as the file is. Raises UserError for a file that is not read."""
    config, path = gguf_model.read(file).config, file.resolve()
    name = folder_name.name_of(path.with_suffix(""), config)
    return ModelSpec(name, config, config["max_position_embeddings"], path=home_relative(path))


def from_hub(hub_id: str, window: int | None = None) -> ModelSpec:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        # From the cache if it is there; else only this small file is downloaded.
        cached = try_to_load_from_cache(hub_id, "config.json")
        offline = not isinstance(cached, str) and not network.reachable(network.hub())
        config = Path(hf_hub_download(hub_id, "config.json", etag_timeout=5, local_files_only=offline))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{hub_id}: not in the hub's cache, and the hub cannot be reached; "
            "name a folder with its config.json, or a model of `harness models`"
        ) from None
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as problem:
        raise UserError(f"{hub_id}: the hub has no config.json for it ({type(problem).__name__})") from None
    spec = from_folder(config.parent, window)
    return ModelSpec(hub_id.split("/")[1], spec.architecture, spec.max_context, hub_id=hub_id, quantized=spec.quantized)


def _without_code(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """`config` without the keys by which a model brings code, or asks for some; stderr says which were dropped.

    Code that comes with a model is never run: the architecture must be one that transformers knows. How the published
    weights are quantised is no part of the architecture either: `ModelSpec.quantized` says it.
    """
    dropped = [key for key in _CODE if key in config] + [key for key in _KERNELS if "/" in str(config.get(key))]
    if dropped:
        say_once(f"{path}: {', '.join(dropped)} left out; code that comes with a model or is fetched is never run")
    kept = {key: value for key, value in config.items() if key not in (*_CODE, *_KERNELS, _QUANTIZED)}
    text = kept.get("text_config")
    return kept | {"text_config": _without_code(text, path)} if isinstance(text, dict) else kept


def _check_sizes(config: dict[str, Any], path: Path) -> None:
    """Raises UserError for an architecture of a size that would take for ever to look at, and that nobody trains."""
    text = config.get("text_config")
    for part in (config, *([text] if isinstance(text, dict) else [])):
        for key, kind in _SIZES.items():
            if isinstance(part.get(key), int | float):
                limits.within(f"{path}: {key}", part[key], kind)


class WindowUnknown(UserError):
    """A config.json says no window under a name that is known: `path`. Whoever knows more asks again with one."""

    def __init__(self, path: Path):
        super().__init__(f"{path}: says nowhere how many tokens the model takes; give them with --window")
        self.path = path


def _given(window: int | None, path: Path) -> int:
    if window is None:
        raise WindowUnknown(path)
    return window


def _max_context(config: dict[str, Any], path: Path) -> int | None:
    # A multimodal model's text part, which has a config of its own, is what is trained.
    text = config.get("text_config")
    for part in (text if isinstance(text, dict) else {}, config):
        for name in WINDOWS:
            if (tokens := part.get(name)) is not None:
                if type(tokens) is not int or tokens < 1:
                    raise UserError(f"{path}: {name} must be a positive whole number, not {quoted(tokens)}")
                return min(tokens, limits.MOST_TOKENS)  # some say that they have no end
    return None
