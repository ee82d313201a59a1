"""Plain causal attention for transformers' models, without masks where none are needed.

transformers looks at the position ids of every forward to find packed sequences (a wait for the device), and on cards
before compute capability 8.0 hands grouped heads to a kernel that holds tokens x tokens. Our batches are whole
sequences: causal is all that attention must be, inside its window where the model has one. Packed sequences are
attended one by one, which no mask of tokens x tokens is needed for either.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from harness.train.ops import cpu_attention

NAME = "plain_causal"
_KERNEL = "_attention_kernel"  # of a model's config: the one of harness.catalog.kernels that was chosen
# Where the chosen one refuses (a mask, fp32), the next that takes it.
_ORDERS = {
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}
_stood_for: list[str] = []  # the kind of device that tensors without storage stand for


@contextmanager
def traced_as(kind: str) -> Iterator[None]:
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
    cpu_attention.mask.cache_clear()
    _window_mask.cache_clear()


def set_kernel(model: torch.nn.Module, kernel: str) -> None:
    """Lets `model` attend by `kernel`, one of those that harness.catalog.kernels has for its device."""
    setattr(model.config.get_text_config(), _KERNEL, kernel)


def with_kernel(
    kernel: str | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, alone: bool = False
) -> torch.Tensor:
    """Causal attention [batch, tokens, heads, dim] of the shapes that `plain_causal` takes.

    If `alone`, no other kernel helps out: raises RuntimeError where this one refuses.
    """
    return _one(query, key, value, None, 0.0, None, kernel, alone).transpose(1, 2).contiguous()


def kind_of(device: torch.device) -> str:
    """What `device` is, or is traced to stand for."""
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
    how = scaling, dropout, sliding_window, getattr(getattr(module, "config", None), _KERNEL, None)
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
    kernel: str | None,
    alone: bool = False,
) -> torch.Tensor:
    """[batch, heads, tokens, dim]: sequences that all tokens belong to."""
    tokens, grouped = query.shape[2], query.shape[1] != key.shape[1]
    windowed = sliding_window is not None and tokens > sliding_window
    if kind_of(query.device) == "cpu" and not dropout and kernel != "sdpa":
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return cpu_attention.attend(query, key, value, scale, sliding_window if windowed else None)
    by_flash = kernel in (None, "sdpa", "flash") and _groups_in_kernel(query.device, query.dtype)
    if grouped and (windowed or not by_flash):
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    order = _ORDERS.get(kernel, [])
    with sdpa_kernel(order[:1] if alone else order, set_priority=True) if order else nullcontext():
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
