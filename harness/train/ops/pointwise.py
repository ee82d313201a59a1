"""RMSNorm and gated activations with their backward written out: few passes over memory, and nothing kept that the
backward can do without.

"plain" is torch's operations one after the other; "compiled" the same formulas by torch.compile, a pass over memory
each; "liger" Liger's Triton kernels (Hsu et al. 2024). All are equal to within the rounding of the dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Pointwise:
    """The functions of one kernel.

    `norm` (x [..., width], frozen weight [width] in fp32 or in x's dtype, eps, twice) is x / rms(x) * weight over the
    last dimension, computed in fp32; the product with the weight is rounded after, or, as Llama does, before too
    (`twice`). `silu` and `gelu` (gate, up) are act(gate) * up, gelu by its tanh approximation.
    """

    norm: Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]
    silu: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    gelu: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@lru_cache(maxsize=3)
def of(kernel: str) -> Pointwise:
    """The functions of "plain", "compiled" or "liger". Raises ImportError where Liger is not installed."""
    if kernel == "liger":
        return _liger()
    via = _compiled if kernel == "compiled" else lambda formula: formula
    norm, slopes = via(_norm), via(_norm_slopes)
    gates = {act: _gated(via(forward), via(backward)).apply for act, (forward, backward) in _GATES.items()}
    return Pointwise(_rms_norm(norm, slopes).apply, **gates)


def _compiled(formula: Callable) -> Callable:
    import torch._inductor.config

    # A pool of compiling processes, which inductor starts by default, would hold memory beside the measured step.
    torch._inductor.config.compile_threads = 1
    # Rounded to 16 bits where the plain operations are, so that both train alike.
    run = torch.compile(formula, dynamic=True, options={"emulate_precision_casts": True})

    def plain_inputs(*given: Any) -> Any:
        # What belongs to a graph and what does not would be compiled apart.
        return run(*(each.detach() if isinstance(each, torch.Tensor) else each for each in given))

    return plain_inputs


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float, twice: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(the norm, 1 / rms [..., 1]) of x [..., width]."""
    wide = x.float()
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    normed = wide * scale
    return (normed.to(x.dtype).mul_(weight) if twice else normed.mul_(weight).to(x.dtype)), scale


def _norm_slopes(grad: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """dx = r (g - n mean(g n)) with n = x r and g = dy weight (Zhang and Sennrich 2019, appendix)."""
    normed = x.to(torch.float32, copy=True).mul_(scale)
    slopes = (grad * weight).float()
    mean = torch.linalg.vecdot(slopes, normed).unsqueeze(-1).div_(x.shape[-1])
    return slopes.sub_(normed.mul_(mean)).mul_(scale).to(x.dtype)


def _rms_norm(norm: Callable, norm_slopes: Callable) -> type[torch.autograd.Function]:
    class RmsNorm(torch.autograd.Function):
        """Only x and one number a row are kept."""

        @staticmethod
        def forward(ctx, x, weight, eps, twice):
            out, scale = norm(x, weight, eps, twice)
            ctx.save_for_backward(x, scale, weight)
            return out

        @staticmethod
        def backward(ctx, grad):
            return norm_slopes(grad, *ctx.saved_tensors), None, None, None

    return RmsNorm


def _gated(forward_of: Callable, slopes_of: Callable) -> type[torch.autograd.Function]:
    class Gated(torch.autograd.Function):
        """Gate and up alone are kept: what lies between is computed again for the backward."""

        @staticmethod
        def forward(ctx, gate, up):
            ctx.save_for_backward(gate, up)
            return forward_of(gate, up)

        @staticmethod
        def backward(ctx, grad):
            return slopes_of(grad, *ctx.saved_tensors)

    return Gated


def _silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate).mul_(up)


def _silu_slopes(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    for_up = functional.silu(gate).mul_(grad)
    return torch.ops.aten.silu_backward(grad * up, gate), for_up


def _gelu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.gelu(gate, approximate="tanh").mul_(up)


def _gelu_slopes(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    for_up = functional.gelu(gate, approximate="tanh").mul_(grad)
    return torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh"), for_up


_GATES = {"silu": (_silu, _silu_slopes), "gelu": (_gelu, _gelu_slopes)}


def _liger() -> Pointwise:
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, twice: bool) -> torch.Tensor:
        # Not in place: what comes after a norm may still want the slopes that it was given.
        return LigerRMSNormFunction.apply(x, weight, eps, 0.0, "llama" if twice else "gemma", False)

    return Pointwise(norm, LigerSiLUMulFunction.apply, LigerGELUMulFunction.apply)
