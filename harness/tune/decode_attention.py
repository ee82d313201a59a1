"""Attention of a step of several tokens per row, whose heads share keys and values, without copying these per head.

transformers repeats keys and values for every head where there is a mask and more than one token: with the seven heads
per key of qwen2.5-0.5b that moves the whole cache fifteen times per step. Here the heads that share a key stand behind
each other as if they were tokens: [rows, heads, tokens, dim] is [rows, key heads, heads per key x tokens, dim].
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "grouped_heads"
_PLAIN = "sdpa"


def grouped_heads(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' sdpa_attention_forward, which does it where no heads share a key or there is more to attention
    than a mask [rows, 1, tokens, columns] and a scale. Returns [rows, tokens, heads, dim] and no weights."""
    rows, heads, tokens, _ = query.shape
    shared = heads // key.shape[1]
    more = any(options.get(name) is not None for name in ("position_bias", "softcap", "s_aux")) or options.get(
        "dropout"
    )
    if shared == 1 or more or attention_mask is None or attention_mask.dim() != 4 or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    out = functional.scaled_dot_product_attention(
        query.reshape(rows, key.shape[1], shared * tokens, -1),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, shared, 1),
        scale=scaling,
    )
    return out.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, grouped_heads)
AttentionMaskInterface.register(NAME, sdpa_mask)


def configs_of(model: Any) -> list[Any]:
    """The configs by which the modules of `model` choose their attention, each once."""
    every = [model.config, model.config.get_text_config(), *(m.config for m in model.modules() if hasattr(m, "config"))]
    return [c for c in {id(c): c for c in every}.values() if hasattr(c, "_attn_implementation_internal")]


def set_attention(names: Iterable[tuple[Any, str | None]]) -> None:
    """Sets the attention of each of the configs by itself: through the model it may be refused, and goes down to the
    configs below."""
    for config, name in names:
        config._attn_implementation_internal = name


@contextmanager
def grouped(configs: Sequence[Any]) -> Iterator[None]:
    """Within it modules of these `configs` attend by `grouped_heads` where they have torch's kernels."""
    plain = [config for config in configs if config._attn_implementation == _PLAIN]
    try:
        set_attention((config, NAME) for config in plain)
        yield
    finally:
        set_attention((config, _PLAIN) for config in plain)
