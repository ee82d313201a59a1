"""What bitsandbytes' 4-bit matrices on a CPU need before they are trained with, or asked at all.

Its CPU kernels take a matrix row by row, each of whole blocks of 64 values. Values are quantised 64 by 64 however the
rows lie, so where a row's length is no multiple of 64 all rows but the first get other blocks' scales, without a word
(seen in 0.50.2). The kernels of cards do not know rows.
"""

from types import MethodType

import torch
from torch.nn.functional import linear


def repair(model: torch.nn.Module) -> None:
    """Puts a product of our own where the rows of a 4-bit matrix on a CPU are not whole blocks, and keeps all of them
    as they are.

    bitsandbytes would repack a matrix when first decoding, for good and without a backward: whoever trained after that
    got wrong gradients.
    """
    for module in model.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        state = getattr(module.weight, "quant_state", None)
        if state is not None and module.weight.device.type == "cpu" and state.shape[-1] % state.blocksize:
            module.forward = MethodType(_product, module)


def matrix(weight: torch.Tensor) -> torch.Tensor:
    """The values [out, in] of a 4-bit `weight`, in the dtype that it was quantised from."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    of = weight.quant_state
    whole = torch.Size([1, of.shape.numel()])  # one row: blocks one after the other
    state = QuantState(of.absmax, whole, of.code, of.blocksize, of.quant_type, of.dtype, of.offset, of.state2)
    return dequantize_4bit(weight.data.view(-1, 1), state).view(of.shape)


def _product(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return _FourBitProduct.apply(x, self.weight, self.bias)


class _FourBitProduct(torch.autograd.Function):
    """x W' + bias of a frozen 4-bit W, widened for the forward and again for the backward."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return linear(x, matrix(weight).to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad):
        return grad @ matrix(ctx.weight).to(grad.dtype), None, None
