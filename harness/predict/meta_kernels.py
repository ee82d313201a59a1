"""What a device runs as one kernel and the meta device would decompose: attention and dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.nn import functional

from harness.predict.roofline import ATTENTION
from harness.predict.trace_pool import MATH_ATTENTION
from harness.train import meta_autocast

Recorder = Any  # harness.predict.op_trace.OpRecorder


def bytes_moved(tensors: list) -> int:
    """Bytes moved by reading or writing every tensor once; an expanded one counts its storage."""
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


@contextmanager
def kernels(recorder: Recorder, kind: str) -> Iterator[None]:
    """Replaces the functions that a device runs as one kernel and the meta device would decompose.

    The functions themselves, because a mode would be off when checkpointing recomputes in the backward.
    """

    # The parameters are those of torch.nn.functional.scaled_dot_product_attention.
    def attend(  # noqa: PLR0913
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        query, key, value = (meta_autocast.cast(t, meta_autocast.current()) for t in (query, key, value))
        if kind == MATH_ATTENTION:
            return math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[0]
        return FusedAttention.apply(query, key, value, recorder, 0.5 if is_causal else 1.0)

    def dropout(input, p=0.5, training=True, inplace=False):
        return torch.native_dropout(input, p, True)[0] if training and p else input

    # torch's path without a fused kernel: its products and what it holds of tokens x tokens, in fp32, are seen.
    math = torch.ops.aten._scaled_dot_product_attention_math
    originals = functional.scaled_dot_product_attention, functional.dropout
    functional.scaled_dot_product_attention, functional.dropout = attend, dropout
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout = originals


class FusedAttention(torch.autograd.Function):
    """Stands for FlashAttention or its like: of tokens x tokens nothing is held but a number per row (Dao et al. 2022);
    the backward makes the weights again, five products for the forward's two."""

    @staticmethod
    def forward(ctx, query, key, value, recorder, share):
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        # Forward: query x key and weights x value, 2 FLOPs for a multiplication and its addition.
        products = 2 * query.shape[-2] * key.shape[-2] * prod(query.shape[:-2]) * share
        ctx.recorder, ctx.flops = recorder, products * query.shape[-1]
        recorder.add(ATTENTION, query.dtype, 2 * ctx.flops, bytes_moved([query, key, value, out]))
        return out

    @staticmethod
    def backward(ctx, grad):
        # Backward: the weights again, then the gradients of weights, values, queries and keys.
        saved = ctx.saved_tensors
        grads = [torch.empty_like(t) for t in saved[:3]]
        ctx.recorder.add(ATTENTION, grad.dtype, 5 * ctx.flops, bytes_moved([grad, *saved, *grads]))
        return *grads, None, None
