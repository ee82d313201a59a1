"""RMSNorm and gated activations with their backward written out: few passes over memory, and nothing kept that the
backward can do without.

"plain" is torch's operations one after the other; "fused" the same with torch's own kernel of the norm, one launch
forward and one backward; "compiled" the formulas by torch.compile, one pass over memory per formula; "liger" Liger's
Triton kernels (Hsu et al. 2024). All are equal to within the rounding of the dtype.
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
    last dimension, computed in fp32 and rounded to x's dtype at the end, or, with `twice`, as Llama does, before the
    product with the weight too. `silu` and `gelu` (gate, up) are act(gate) * up, gelu by its tanh approximation.
    """

    norm: Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]
    silu: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    gelu: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@lru_cache(maxsize=4)
def of(kernel: str) -> Pointwise:
    """The functions of "plain", "fused", "compiled" or "liger". Raises ImportError where the library has none."""
    if kernel == "liger":
        return _liger()
    if kernel == "fused":
        return _fused()
    prepare = _compiled if kernel == "compiled" else lambda formula: formula
    norm, norm_grad = prepare(_norm), prepare(_norm_grad)
    gates = {act: _gated(prepare(forward), prepare(backward)).apply for act, (forward, backward) in _GATES.items()}
    return Pointwise(_rms_norm(norm, norm_grad).apply, **gates)


def _compiled(formula: Callable) -> Callable:
    """`formula` by torch.compile, for inputs of any size."""
    import torch._inductor.config

    # By default inductor starts a pool of compiling processes, which would hold memory beside the measured step.
    torch._inductor.config.compile_threads = 1
    # Rounded to 16 bits where the plain operations are, so that both train alike.
    run = torch.compile(formula, dynamic=True, options={"emulate_precision_casts": True})

    def run_detached(*inputs: Any) -> Any:
        # Inputs with and without a graph would be compiled separately.
        return run(*(value.detach() if isinstance(value, torch.Tensor) else value for value in inputs))

    return run_detached


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float, twice: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(the norm, 1 / rms [..., 1]) of x [..., width]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    normed = x * scale  # in fp32
    return (normed.to(x.dtype).mul_(weight) if twice else normed.mul_(weight).to(x.dtype)), scale


def _norm_grad(grad: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """dx = r (g - n mean(g n)) with n = x r and g = dy weight (Zhang and Sennrich 2019, appendix)."""
    normed = x * scale
    scaled = (grad * weight).float()
    total = torch.linalg.vecdot(scaled, normed).unsqueeze(-1)
    return scaled.sub_(normed.mul_(total), alpha=1 / x.shape[-1]).mul_(scale).to(x.dtype)


def _rms_norm(norm: Callable, norm_grad: Callable) -> type[torch.autograd.Function]:
    class RmsNorm(torch.autograd.Function):
        """Keeps x and one number per row."""

        @staticmethod
        def forward(ctx, x, weight, eps, twice):
            out, scale = norm(x, weight, eps, twice)
            ctx.save_for_backward(x, scale, weight)
            return out

        @staticmethod
        def backward(ctx, grad):
            return norm_grad(grad, *ctx.saved_tensors), None, None, None

    return RmsNorm


def _gated(gated: Callable, gated_grad: Callable) -> type[torch.autograd.Function]:
    class Gated(torch.autograd.Function):
        """Keeps gate and up alone: the activation is recomputed in the backward."""

        @staticmethod
        def forward(ctx, gate, up):
            ctx.save_for_backward(gate, up)
            return gated(gate, up)

        @staticmethod
        def backward(ctx, grad):
            return gated_grad(grad, *ctx.saved_tensors)

    return Gated


def _silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate).mul_(up)


def _silu_grad(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    up_grad = functional.silu(gate).mul_(grad)
    return torch.ops.aten.silu_backward(grad * up, gate), up_grad


def _gelu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.gelu(gate, approximate="tanh").mul_(up)


def _gelu_grad(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    up_grad = functional.gelu(gate, approximate="tanh").mul_(grad)
    return torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh"), up_grad


_GATES = {"silu": (_silu, _silu_grad), "gelu": (_gelu, _gelu_grad)}


def _fused() -> Pointwise:
    """The norm by torch's one kernel; it keeps x and one number per row, as ours does."""
    # Older ones take it apart into a dozen operations, whose results they keep.
    if not hasattr(torch.ops.aten, "_fused_rms_norm"):
        raise ImportError(f"torch {torch.__version__} has no fused norm")
    plain = of("plain")

    def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, twice: bool) -> torch.Tensor:
        # The kernel wants the weight in x's dtype; one in fp32 (Gemma) would be taken apart.
        if weight.dtype != x.dtype:
            return plain.norm(x, weight, eps, twice)
        return functional.rms_norm(x, weight.shape, weight, eps)

    return Pointwise(norm, plain.silu, plain.gelu)


def _liger() -> Pointwise:
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, twice: bool) -> torch.Tensor:
        # Not in place: another op's backward may still read the gradient that comes in.
        return LigerRMSNormFunction.apply(x, weight, eps, 0.0, "llama" if twice else "gemma", False)

    return Pointwise(norm, LigerSiLUMulFunction.apply, LigerGELUMulFunction.apply)
