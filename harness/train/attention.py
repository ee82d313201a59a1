"""Plain causal attention for transformers' models, without masks where none are needed.

transformers looks at the position ids of every forward to find packed sequences (a wait for the device), and on cards
before compute capability 8.0 hands grouped heads to a kernel that holds tokens x tokens. Our batches are whole
sequences: causal is all that attention must be, inside its window where the model has one. Packed sequences are
attended one by one, which no mask of tokens x tokens is needed for either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch.nn import functional
from transformers import AttentionInterface

from harness.train import blocks

NAME = "plain_causal"
_stood_for: list[str] = []  # the kind of device that tensors without storage stand for


@contextmanager
def as_on(kind: str) -> Iterator[None]:
    """Computes tensors of the meta device as those of "cpu", of "cuda" or of a card before compute capability 8.0
    ("cuda-7") would be, which is what tracing wants."""
    _stood_for.append(kind)
    forget_masks()
    try:
        yield
    finally:
        _stood_for.pop()


def forget_masks() -> None:
    """Masks are kept from step to step; the next one makes, and holds, them anew."""
    blocks.mask.cache_clear()
    _window_mask.cache_clear()


def _kind(device: torch.device) -> str:
    return _stood_for[-1] if device.type == "meta" and _stood_for else device.type


def plain_causal(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed_lengths: tuple[int, ...] | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` [batch, heads, tokens, dim] over `key` and `value` [batch, kv_heads, tokens, dim].

    `packed_lengths` says how the tokens are divided into sequences. Returns [batch, tokens, heads, dim], as
    transformers' attention interface asks, and no weights. Raises ValueError for a mask (padding), which our batches
    do not have.
    """
    if attention_mask is not None:
        raise ValueError("plain causal attention takes whole sequences, not a mask")
    how = scaling, dropout, sliding_window
    if packed_lengths is None or len(packed_lengths) == 1:
        return _one(query, key, value, *how).transpose(1, 2).contiguous(), None
    parts = zip(*(part.split(packed_lengths, 2) for part in (query, key, value)), strict=True)
    return torch.cat([_one(*part, *how).transpose(1, 2) for part in parts], 1), None


def _one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
) -> torch.Tensor:
    """[batch, heads, tokens, dim]: sequences that all tokens belong to."""
    tokens, grouped = query.shape[2], query.shape[1] != key.shape[1]
    windowed = sliding_window is not None and tokens > sliding_window
    if _kind(query.device) == "cpu" and not dropout:
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return blocks.attend(query, key, value, scale, sliding_window if windowed else None)
    if grouped and (windowed or not _groups_in_kernel(query.device, query.dtype)):
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_window_mask(tokens, sliding_window, query.device, query.dtype) if windowed else None,
        is_causal=not windowed,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=grouped,
    )


def _groups_in_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads; elsewhere the math path would hold L x L.

    On CUDA only flash attention does, which wants compute capability 8.0, 16 bits and no mask.
    """
    if device.type == "meta":
        return bool(_stood_for) and _stood_for[-1] == "cuda" and dtype != torch.float32
    flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return flash and dtype in (torch.float16, torch.bfloat16)


@lru_cache(maxsize=2)
def _window_mask(tokens: int, window: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[tokens, tokens] to add: 0 where the column lies at most window - 1 before the row, else -inf.

    Additive and not bool, which every layer would turn into such a one and keep for its backward.
    """
    at = torch.arange(tokens, device=device)
    behind = at[:, None] - at[None, :]
    mask = torch.zeros(tokens, tokens, dtype=dtype, device=device)
    return mask.masked_fill_((behind < 0) | (behind >= window), float("-inf"))


# Registered without a mask function, so transformers builds no mask for it.
AttentionInterface.register(NAME, plain_causal)
