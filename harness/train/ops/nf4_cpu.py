"""Repairs of bitsandbytes' 4-bit layers on a CPU, which else compute wrong values or wrong gradients.

Its CPU kernels read a matrix row by row, each row as whole blocks of 64 values. But values are quantised 64 by 64
across rows, so where the row length is not a multiple of 64 all rows but the first get other blocks' scales, silently
(seen in 0.50.2). The kernels of cards do not read by rows.
"""

from types import MethodType

import torch
from torch.nn.functional import linear


def repair(model: torch.nn.Module) -> None:
    """Replaces the forward of CPU 4-bit layers whose row length is not a multiple of the block size, and disables
    in-place repacking.

    bitsandbytes repacks a matrix when it first decodes, for good, and has no backward for the repacked one: training
    after that would get wrong gradients.
    """
    for module in model.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        # No layer may repack; those whose rows are not whole blocks get another product, too.
        module.support_avx512bf16_for_cpu = False
        state = getattr(module.weight, "quant_state", None)
        if state is not None and module.weight.device.type == "cpu" and state.shape[-1] % state.blocksize:
            module.forward = MethodType(_product, module)


def matrix(weight: torch.Tensor) -> torch.Tensor:
    """The values [out, in] of a 4-bit `weight`, in the dtype that it was quantised from."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    # As one long row, blocks of 64 values follow one another as they were quantised.
    state = weight.quant_state
    one_row = torch.Size([1, state.shape.numel()])
    flat = QuantState(
        state.absmax, one_row, state.code, state.blocksize, state.quant_type, state.dtype, state.offset, state.state2
    )
    return dequantize_4bit(weight.data.view(-1, 1), flat).view(state.shape)


def _product(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return _FourBitProduct.apply(x, self.weight, self.bias)


class _FourBitProduct(torch.autograd.Function):
    """x W' + bias of a frozen 4-bit W, which is dequantised for the forward and again for the backward."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return linear(x, matrix(weight).to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad):
        return grad @ matrix(ctx.weight).to(grad.dtype), None, None
