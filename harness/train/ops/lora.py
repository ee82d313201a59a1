"""LoRA's matrix products with their backward written out: no product more than needed, and nothing kept that the
backward can do without.

Both are equal to what transformers and PEFT compute, to within the rounding of the dtype; harness.train.patch checks
that before it puts them in. harness.train.ops.pointwise has the operations between products.
"""

import torch
from torch.nn.functional import linear


class LoraLinear(torch.autograd.Function):
    """x W' + bias + scaling (x A') B' in x's dtype: (x [..., in], W [out, in], bias, A [r, in], B [out, r], scaling).

    A and B are fp32 for the optimiser and rounded to x's dtype here, two small matrices; PEFT instead widens every
    activation to fp32. W and bias are frozen.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        # The scaling goes into B, a small matrix, and the addition into the base's output.
        a_low, b_low = a.to(x.dtype), (b * scaling).to(x.dtype)
        inner = flat @ a_low.t()
        out = linear(flat, weight, bias).addmm_(inner, b_low.t())
        ctx.save_for_backward(flat, weight, a_low, b_low, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        flat, weight, a, b, inner = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_inner = grad @ b  # b holds the scaling
        # No gradient is made for the first layer's input: embeddings are frozen.
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(grad, weight).addmm_(grad_inner, a).view(ctx.shape)
        return dx, None, None, (grad_inner.t() @ flat).float(), (grad.t() @ inner).float().mul_(ctx.scaling), None


class LoraAddition(torch.autograd.Function):
    """out + scaling (x A') B' as in LoraLinear, where `out` [..., out] is a quantised layer's output for x."""

    @staticmethod
    def forward(ctx, out, x, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        a_low, b_low = a.to(x.dtype), (b * scaling).to(x.dtype)
        inner = flat @ a_low.t()
        ctx.save_for_backward(flat, a_low, b_low, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        # Not a view, which autograd lets nobody change in place: Falcon adds attention to its MLP's output so.
        return torch.ops.aten._unsafe_view(torch.addmm(out.reshape(-1, out.shape[-1]), inner, b_low.t()), out.shape)

    @staticmethod
    def backward(ctx, grad):
        flat, a, b, inner = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_inner = rows @ b  # b holds the scaling
        dx = (grad_inner @ a).view(ctx.shape) if ctx.needs_input_grad[1] else None
        return grad, dx, (grad_inner.t() @ flat).float(), (rows.t() @ inner).float().mul_(ctx.scaling), None
