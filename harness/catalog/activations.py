"""How many tokens go through a model at once, by its config and the bytes that are free.

A fine-tune packs so many together (harness.train.packing), and a sweep's micro-batch has no more of them
(harness.predict.variants).
"""

from collections.abc import Mapping
from typing import Any

_LEAST_BYTES = 2**29  # that one forward may keep for its backward, however little is free
_FREE_SHARE = 0.5  # of what is free; the rest is for what the estimate does not see
_KEPT = 40  # values per token, layer and unit of width, kept for the backward


def tokens_at_once(layers: int, width: int, element_bytes: int, free_bytes: float = 0.0) -> int:
    """Tokens whose activations, of `element_bytes` per value, take half of `free_bytes`, or half a GiB if that is more.

    A small model takes several sequences at once this way; one by one, its many small operations would take the time.
    """
    return int(max(_LEAST_BYTES, _FREE_SHARE * free_bytes)) // (_KEPT * layers * width * element_bytes)


def number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """The first of a config.json's values of these names that is a whole number above zero."""
    return next((value for name in names if type(value := config.get(name)) is int and value), default)


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config.json's values of the part that reads text: a multimodal model has a config of its own for it."""
    return config["text_config"] if isinstance(config.get("text_config"), Mapping) else config


def layers_and_width(config: Mapping[str, Any]) -> tuple[int, int]:
    """Layers and hidden size by a config.json's values, whatever the architecture calls them; 0 for what it lacks."""
    config = text_part(config)
    layers = number(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
    return layers, number(config, "hidden_size", "n_embd", "d_model")
