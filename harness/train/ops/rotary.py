"""Rotary position embeddings of queries and keys with their backward written out.

transformers' own formula, q * cos + rotate_half(q) * sin, is five operations forward and nine backward for each of
both; here it is three and three, and nothing is kept but cos and sin. A step of few tokens on a fast card takes as
long as its launches.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch

NAME = "apply_rotary_pos_emb"  # the function in transformers' modules
_TOLERANCE = 1e-6


class _Rotation(torch.autograd.Function):
    """(q, k, cos, sin) -> rotated q and k, of [..., tokens, dim]; cos and sin broadcast to both."""

    @staticmethod
    def forward(ctx, q, k, cos, sin):
        ctx.save_for_backward(cos, sin)
        sines = sin.chunk(2, -1)
        return _rotated(q, cos, *sines, -1), _rotated(k, cos, *sines, -1)

    @staticmethod
    def backward(ctx, grad_q, grad_k):
        cos, sin = ctx.saved_tensors
        # Transposed, each half's sine comes with the half that it is multiplied by.
        second, first = sin.chunk(2, -1)
        return _rotated(grad_q, cos, first, second, 1), _rotated(grad_k, cos, first, second, 1), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, first: torch.Tensor, second: torch.Tensor, sign: int) -> torch.Tensor:
    """x cos + sign * (b first, -a second), where a and b are the halves of x's last dimension."""
    out = x * cos
    (a, b), (out_a, out_b) = x.chunk(2, -1), out.chunk(2, -1)
    out_a.addcmul_(b, first, value=sign)
    out_b.addcmul_(a, second, value=-sign)
    return out


def forward_of(module: Any) -> Callable | None:
    """The forward of `module`, an attention of transformers', with the rotation above in place of its own.

    None where it calls no function of that name, or one that computes something else: in some families neighbouring
    values are rotated together.
    """
    if "forward" in vars(module):
        return None
    forward: Any = inspect.unwrap(type(module).forward)
    own = getattr(forward, "__globals__", {}).get(NAME)
    if own is None or NAME not in forward.__code__.co_names or not _agrees(own):
        return None
    return _with_rotation(forward, own)


@lru_cache(maxsize=64)
def _with_rotation(forward: Any, own: Callable) -> Callable:
    def rotate(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if args or kwargs or cos.shape[-1] != q.shape[-1] or not (cos.dtype == q.dtype == k.dtype):
            return own(q, k, cos, sin, *args, **kwargs)
        return _Rotation.apply(q, k, cos.unsqueeze(1), sin.unsqueeze(1))

    # The same code in which one name means another function: the module of transformers is left as it is.
    names = {**forward.__globals__, NAME: rotate}
    replaced = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    replaced.__kwdefaults__ = forward.__kwdefaults__
    return replaced


@lru_cache(maxsize=64)
def _agrees(own: Callable) -> bool:
    """Whether `own` computes the rotation: values and gradients of random queries and keys, with random cos and sin."""
    generator = torch.Generator().manual_seed(0)
    q, k, cos, sin, *slopes = (
        torch.randn(*shape, generator=generator)
        for shape in ((2, 4, 3, 8), (2, 2, 3, 8), (2, 3, 8), (2, 3, 8), (2, 4, 3, 8), (2, 2, 3, 8))
    )

    def learned(rotate: Callable, *angles: torch.Tensor) -> list[torch.Tensor]:
        inputs = [q.clone().requires_grad_(), k.clone().requires_grad_()]
        with torch.enable_grad():
            outs = rotate(*inputs, *angles)
            return [*(out.detach() for out in outs), *torch.autograd.grad(outs, inputs, slopes)]

    try:
        pairs = zip(learned(own, cos, sin), learned(_Rotation.apply, cos[:, None], sin[:, None]), strict=True)
        return all(a.shape == b.shape and (a - b).abs().max() <= _TOLERANCE * a.abs().max() for a, b in pairs)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
