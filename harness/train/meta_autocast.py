"""torch.autocast for tensors on the meta device, which torch itself refuses.

Within `patched`, products, norms and attention cast their inputs as autocast's lists say (torch.amp's documentation,
"CUDA Ops that can autocast"): products to the region's dtype, layer norms to fp32. What autocast would cache is cast at
each use: every matrix is used once per forward.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

_regions: list[torch.dtype | None] = []  # the dtypes of the regions that are entered, the innermost last
_recomputed: list[torch.dtype | None] = []  # of the forward whose backward runs
# Where autocast casts to the region's dtype, and to fp32: (owner, name).
_TO_REGION = (
    (functional, "linear"),
    *((owner, name) for owner in (torch, torch.Tensor) for name in ("matmul", "mm", "bmm", "addmm", "baddbmm")),
    (torch.Tensor, "__matmul__"),
    (torch, "einsum"),
)
_TO_FP32 = ((functional, "layer_norm"),)


def region(dtype: torch.dtype | None = None, enabled: bool = True) -> Any:
    """Stands for torch.autocast("meta", dtype, enabled); without a dtype nothing is cast in it."""
    return _entered(dtype if enabled else None)


@contextmanager
def _entered(dtype: torch.dtype | None) -> Iterator[None]:
    _regions.append(dtype)
    try:
        yield
    finally:
        _regions.pop()


@contextmanager
def recomputed(dtype: torch.dtype | None) -> Iterator[None]:
    """Around a backward: checkpointed forwards that run again within it are under autocast, its own operations not."""
    _recomputed.append(dtype)
    try:
        yield
    finally:
        _recomputed.pop()


def current() -> torch.dtype | None:
    """The dtype that products are cast to now; None outside a region."""
    if _regions:
        return _regions[-1]
    # A backward's own operations run without gradients, a forward that is made again with them.
    return _recomputed[-1] if _recomputed and torch.is_grad_enabled() else None


def cast(values: Any, dtype: torch.dtype | None) -> Any:
    """`values`, a tensor in floating point cast to `dtype`; anything else, and all without a dtype, as it is."""
    casts = dtype is not None and isinstance(values, torch.Tensor) and values.is_floating_point()
    return values.to(dtype) if casts else values


@contextmanager
def patched() -> Iterator[None]:
    """Within it regions work."""
    changes = [(owner, name, _casting(getattr(owner, name))) for owner, name in _TO_REGION]
    changes += [(owner, name, _casting(getattr(owner, name), torch.float32)) for owner, name in _TO_FP32]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, function in changes:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def _casting(function: Callable[..., Any], fixed: torch.dtype | None = None) -> Callable[..., Any]:
    @wraps(function)
    def casting(*args: Any, **kwargs: Any) -> Any:
        if (dtype := current()) is None:
            return function(*args, **kwargs)
        # Inside, as autocast, without casting again.
        with _entered(None):
            to = fixed or dtype
            return function(*(cast(value, to) for value in args), **{k: cast(v, to) for k, v in kwargs.items()})

    return casting
