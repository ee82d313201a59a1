"""Whether a forward of ours computes what a module's own does: values and gradients, on random inputs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

# Largest difference allowed, as a share of the largest value: two orders of summation round differently.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_SMALLEST = 1 / 64  # scale of the inputs of a comparison


def passes(comparison: Callable[..., bool], *arguments: object) -> bool:
    """True if the comparison passes; False if the module's interface differs from what its name suggests."""
    try:
        return comparison(*arguments)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        return False


def agrees(module: torch.nn.Module, forward: Callable, dtype: torch.dtype) -> bool:
    """Whether `forward` equals the module's own: output, and gradients of the input and of the adapter."""
    # Random input and random adapter values, the same for both forwards.
    trained = [p for p in module.parameters() if p.requires_grad]
    before, device = [p.detach().clone() for p in trained], next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, _width(module), generator=generator).to(device, dtype)
    with torch.no_grad():  # an adapter starts at zero, where errors do not show
        for p in trained:
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    # Small values, and some large enough for the limits that some activations have (swiglu_limit: 7 or 10), but not
    # beyond the dtype's: in fp16 an adapter of a high alpha overflows.
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for scale in (1.0, 16.0):
        expected = _out_and_gradients(module.forward, scale * x, trained)
        while scale > _SMALLEST and not all(value.isfinite().all() for value in expected):
            scale /= 2
            expected = _out_and_gradients(module.forward, scale * x, trained)
        pairs += zip(_out_and_gradients(partial(forward, module), scale * x, trained), expected, strict=True)
    # The adapter gets its values back.
    with torch.no_grad():
        for p, value in zip(trained, before, strict=True):
            p.copy_(value)
    alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return alike and all(close(a, b, dtype) for a, b in pairs)


def _out_and_gradients(forward: Callable, x: torch.Tensor, trained: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        out = forward(x)
        # A weighted sum, so that an error in one element cannot cancel one in another.
        weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
        return [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), [x, *trained])]


def close(ours: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    ours, expected = ours.float(), expected.float()
    return bool((ours - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max())


def _width(module: Any) -> int:
    """The last dimension of what the module takes."""
    # A LoRA layer has it in its base, a gated MLP in its gate, a norm in its weight.
    inner = getattr(module, "base_layer", None) or getattr(module, "gate_proj", None)
    inner = inner or getattr(module, "gate_up_proj", None)
    if inner is None:
        return module.weight.shape[-1]
    return getattr(inner, "in_features", None) or inner.base_layer.in_features
