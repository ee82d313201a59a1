"""Plain causal attention for transformers' models, without masks where none are needed.

transformers looks at the position ids of every forward to find packed sequences (a wait for the device), and on cards
before compute capability 8.0 hands grouped heads to a kernel that holds tokens x tokens. Our batches are whole
sequences: causal is all that attention must be, inside its window where the model has one.
"""

from functools import lru_cache

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "plain_causal"


def plain_causal(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` [batch, heads, tokens, dim] over `key` and `value` [batch, kv_heads, tokens, dim].

    Returns [batch, tokens, heads, dim], as transformers' attention interface asks, and no weights. Raises ValueError
    for a mask (padding), which our batches do not have.
    """
    if attention_mask is not None:
        raise ValueError("plain causal attention takes whole sequences, not a mask")
    tokens, grouped = query.shape[2], query.shape[1] != key.shape[1]
    windowed = sliding_window is not None and tokens > sliding_window
    if grouped and (windowed or not _groups_in_kernel(query.device, query.dtype)):
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    out = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_window_mask(tokens, sliding_window, query.device, query.dtype) if windowed else None,
        is_causal=not windowed,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2).contiguous(), None


@lru_cache(maxsize=8)
def _groups_in_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads; elsewhere the math path would hold L x L.

    On CUDA only flash attention does, which wants compute capability 8.0, 16 bits and no mask.
    """
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
