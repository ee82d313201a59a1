"""Plain causal attention for transformers' models, without masks where none are needed.

transformers reads the position ids of every forward to find packed sequences (a wait for the device), and on cards
before compute capability 8.0 hands grouped heads to a kernel that holds tokens x tokens. Our batches are whole
sequences, so attention is causal, inside a window where the model has one, and needs no other mask. Of packed sequences
those of one length are attended together, all others one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from harness.train.ops import cpu_attention

NAME = "plain_causal"
_KERNEL = "_attention_kernel"  # attribute of a model's config: the chosen one of harness.catalog.kernels
# Where the chosen kernel refuses (a mask, fp32), torch takes the next. On compute capability 9.0 and later torch's own
# choice is cuDNN's, which makes a plan for every new length (23 to 38 ms on an H100): packs have ever new ones, so it
# runs only where it is named or was the fastest over several lengths.
_ORDERS = {
    "sdpa": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}
_set_for: list[str] = []  # kernels whose order torch has been told, the current one last
_traced_as: list[str] = []  # kinds of device that tensors on meta stand for, the current one last


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What attention depends on besides its tensors; `kernel` is None for torch's own choice."""

    scaling: float | None = None
    dropout: float = 0.0
    sliding_window: int | None = None
    kernel: str | None = None
    alone: bool = False  # no other kernel helps out where this one refuses


@contextmanager
def traced_as(kind: str) -> Iterator[None]:
    """Within it, tensors on the meta device take the code path of `kind`: "cpu", "cuda", or "cuda-7" for a card before
    compute capability 8.0."""
    _traced_as.append(kind)
    forget_masks()
    try:
        yield
    finally:
        _traced_as.pop()


def forget_masks() -> None:
    """Clears the masks that are cached from step to step, so that the next step makes and holds them."""
    cpu_attention.mask.cache_clear()
    _window_mask.cache_clear()


def set_kernel(model: torch.nn.Module, kernel: str) -> None:
    """Sets the kernel that `model` attends by: one that harness.catalog.kernels lists for its device."""
    setattr(model.config.get_text_config(), _KERNEL, kernel)


def kernel_of(model: torch.nn.Module) -> str | None:
    """The kernel that was set; None for torch's own choice."""
    return getattr(model.config.get_text_config(), _KERNEL, None) if hasattr(model, "config") else None


@contextmanager
def kernel_set(model: torch.nn.Module) -> Iterator[None]:
    """Within it torch has the order of `model`'s kernel: setting it in every layer would cost 20 us a time."""
    kernel = kernel_of(model)
    order = _order(kernel, next(model.parameters()).device) if kernel else []
    if not kernel or not order:
        yield
        return
    with sdpa_kernel(order, set_priority=True):
        _set_for.append(kernel)
        try:
            yield
        finally:
            _set_for.pop()


def with_kernel(
    kernel: str | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, alone: bool = False
) -> torch.Tensor:
    """Causal attention [batch, tokens, heads, dim] of the shapes that `plain_causal` takes.

    If `alone`, no other kernel helps out: raises RuntimeError where this one refuses.
    """
    return _attend(query, key, value, _Settings(kernel=kernel, alone=alone)).transpose(1, 2).contiguous()


def backend(kernel: str | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> str:
    """Which of torch's backends attends the shapes that `plain_causal` takes: "flash", "efficient", "cudnn", "math".

    It is what torch chooses for these tensors in the order of `kernel`, without running it; "error" where none can.
    """
    number: Any = _attend(query, key, value, _Settings(kernel=kernel), run=torch._fused_sdp_choice)
    return SDPBackend(number).name.lower().removesuffix("_attention")


def device_kind(device: torch.device) -> str:
    """The kind of `device`, for the meta device the kind that it is traced as."""
    return _traced_as[-1] if device.type == "meta" and _traced_as else device.type


def plain_causal(  # noqa: PLR0913  # the interface of transformers' attention functions
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

    `packed_lengths`: tokens of each packed sequence. Returns [batch, tokens, heads, dim], as transformers' attention
    interface wants, and no weights. Raises ValueError for a mask (padding), which our batches do not have.
    """
    if attention_mask is not None:
        raise ValueError("plain causal attention takes whole sequences, not a mask")
    kernel = getattr(getattr(module, "config", None), _KERNEL, None)
    settings = _Settings(scaling=scaling, dropout=dropout, sliding_window=sliding_window, kernel=kernel)
    if packed_lengths is None or len(packed_lengths) == 1:
        return _attend(query, key, value, settings).transpose(1, 2).contiguous(), None
    return _packed(query, key, value, packed_lengths, settings), None


def _packed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], settings: _Settings
) -> torch.Tensor:
    """[1, tokens, heads, dim] of sequences of `lengths` one behind the other: each attends alone."""
    # Neighbours of one length are a batch of one kernel, as one task's prompts often are. On a CPU the blocks of one
    # sequence fit its caches better.
    alone = device_kind(query.device) == "cpu" and settings.kernel != "sdpa"
    runs = [(n, 1) for n in lengths] if alone else [(n, len(list(same))) for n, same in groupby(lengths)]
    parts = zip(*(part.split([n * count for n, count in runs], 2) for part in (query, key, value)), strict=True)
    outs = []
    for (n, count), sequences in zip(runs, parts, strict=True):
        batch = (part[0].unflatten(1, (count, n)).transpose(0, 1) for part in sequences)  # [count, heads, n, dim]
        outs.append(_attend(*batch, settings).transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)[None] if len(outs) > 1 else outs[0][None]


def _order(kernel: str | None, device: torch.device) -> list[SDPBackend]:
    """The backends that torch may use, the first first; empty for its own choice. A CPU has no cuDNN to leave out."""
    return [] if kernel is None or (kernel == "sdpa" and device_kind(device) != "cuda") else _ORDERS.get(kernel, [])


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    settings: _Settings,
    run: Callable[..., Any] | None = None,
) -> torch.Tensor:
    """[batch, heads, tokens, dim] of whole sequences, all of the same length; `run` in place of torch's function."""
    kernel, window, scaling = settings.kernel, settings.sliding_window, settings.scaling
    tokens, grouped = query.shape[2], query.shape[1] != key.shape[1]
    windowed = window is not None and tokens > window
    # On a CPU, in blocks of our own.
    if device_kind(query.device) == "cpu" and not settings.dropout and kernel != "sdpa":
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return cpu_attention.attend(query, key, value, scale, window if windowed else None)
    # Key heads are repeated for the query heads that share them, unless the kernel does that itself.
    by_flash = kernel in (None, "sdpa", "flash") and _groups_in_kernel(query.device, query.dtype)
    if grouped and (windowed or not by_flash):
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    order = [] if _set_for[-1:] == [kernel] and not settings.alone else _order(kernel, query.device)
    if settings.alone and kernel != "sdpa":
        order = order[:1]
    with sdpa_kernel(order, set_priority=True) if order else nullcontext():
        return (run or functional.scaled_dot_product_attention)(
            query,
            key,
            value,
            attn_mask=_window_mask(tokens, window, query.device, query.dtype) if windowed else None,
            is_causal=not windowed,
            dropout_p=settings.dropout,
            scale=scaling,
            enable_gqa=grouped,
        )


def _groups_in_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads; else torch's math path would hold tokens x tokens.

    On CUDA only flash attention does, which needs compute capability 8.0, 16 bits and no mask.
    """
    if device.type == "meta":
        return bool(_traced_as) and _traced_as[-1] == "cuda" and dtype != torch.float32
    return device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and _has_flash(device)


@lru_cache(maxsize=16)
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


@lru_cache(maxsize=2)
def _window_mask(tokens: int, window: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[tokens, tokens] to add: 0 where the column lies at most window - 1 before the row, else -inf.

    Additive, because every layer would turn a bool mask into an additive one of its own and keep it for its backward.
    """
    # By how many tokens the column lies before the row.
    positions = torch.arange(tokens, device=device)
    behind = positions[:, None] - positions[None, :]
    mask = torch.zeros(tokens, tokens, dtype=dtype, device=device)
    return mask.masked_fill_((behind < 0) | (behind >= window), float("-inf"))


# Registered without a mask function, so transformers builds no mask for it.
AttentionInterface.register(NAME, plain_causal)
