"""LoRA's matrix products with their backward written out: no product more than needed, and nothing kept that the
backward can do without.

Both are equal to what transformers and PEFT compute, to within the rounding of the dtype; harness.train.patch checks
that before it puts them in. harness.train.ops.pointwise has the operations between products, and
harness.train.ops.adapter_copies what the micro-steps of one step share.
"""

import torch
from torch.nn.functional import linear

from harness.train.ops import adapter_copies


class LoraLinear(torch.autograd.Function):
    """x W' + bias + scaling (x A') B' in x's dtype: (x [..., in], W [out, in], bias, A [r, in], B [out, r], scaling).

    A and B are fp32 for the optimiser and rounded to x's dtype here, two small matrices; PEFT instead widens every
    activation to fp32. W and bias are frozen.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        ctx.copies = copies = adapter_copies.current()
        a_low, b_low = copies.rounded((a,), x.dtype), copies.rounded((b,), x.dtype)
        # Scaling and adding are part of the product, so they launch nothing.
        inner = flat @ a_low.t()
        out = linear(flat, weight, bias).addmm_(inner, b_low.t(), alpha=scaling)
        ctx.save_for_backward(flat, weight, a_low, b_low, inner)
        ctx.trained, ctx.scaling, ctx.shape = (a, b), scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        flat, weight, a, b, inner = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_inner, *trained = _gradients(ctx, flat, grad, b, inner)
        # No gradient is made for the first layer's input: embeddings are frozen.
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(grad, weight).addmm_(grad_inner, a).view(ctx.shape)
        return dx, None, None, *trained, None


class LoraAddition(torch.autograd.Function):
    """out + scaling (x A') B' as in LoraLinear, where `out` [..., out] is a quantised layer's output for x."""

    @staticmethod
    def forward(ctx, out, x, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        ctx.copies = copies = adapter_copies.current()
        a_low, b_low = copies.rounded((a,), x.dtype), copies.rounded((b,), x.dtype)
        inner = flat @ a_low.t()
        ctx.save_for_backward(flat, a_low, b_low, inner)
        ctx.trained, ctx.scaling, ctx.shape = (a, b), scaling, x.shape
        added = torch.addmm(out.reshape(-1, out.shape[-1]), inner, b_low.t(), alpha=scaling)
        # Not a view, which autograd lets nobody change in place: Falcon adds attention to its MLP's output so.
        return torch.ops.aten._unsafe_view(added, out.shape)

    @staticmethod
    def backward(ctx, grad):
        flat, a, b, inner = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_inner, *trained = _gradients(ctx, flat, rows, b, inner)
        dx = (grad_inner @ a).view(ctx.shape) if ctx.needs_input_grad[1] else None
        return grad, dx, *trained, None


def _gradients(
    ctx, flat: torch.Tensor, grad: torch.Tensor, b: torch.Tensor, inner: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x A' (times the scaling), and those of A and B unless `ctx.copies` keeps them; b is rounded."""
    # With a beta of 0 the first argument only has the shape of the result.
    grad_inner = torch.addmm(inner, grad, b, beta=0, alpha=ctx.scaling)
    grad_a = grad_inner.t() @ flat
    grad_b = torch.addmm(b, grad.t(), inner, beta=0, alpha=ctx.scaling)
    a_matrix, b_matrix = ctx.trained
    return grad_inner, ctx.copies.take(a_matrix, grad_a), ctx.copies.take(b_matrix, grad_b)
