"""What a micro-step does, operation by operation, without device, weights or storage.

The model is built on torch's meta device with its adapter and recipe. Training's own forward and backward run on it
under a dispatch mode that sees every operation: its FLOPs, its bytes, its dtype, and which storages live.
Fused attention is counted as the kernel that the device has (nothing of tokens x tokens is held; a card before 8.0 has
none for bf16), quantised layers by bitsandbytes' own operations, each in the shapes that it has. Any architecture that
transformers builds is traced so.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.hardware.device import TORCH_DTYPES
from harness.predict.roofline import ATTENTION, BANDWIDTH, DEQUANTIZE, FUSED_4BIT, GEMM, SKINNY_GEMM, Memory, Op, Trace
from harness.predict.trace_pool import MATH_ATTENTION
from harness.records.cell import Recipe
from harness.train.batches import random_batch
from harness.train.compat import without_storage
from harness.train.losses import loss_of
from harness.train.model import count_params
from harness.train.ops import attention

_Shape = tuple[int, int, int] | None
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_SKINNY_BELOW = 128  # the smallest side of a product that a device runs at its rate
# What reads and writes only the rows that it is asked for.
_SPARSE = ("embedding", "index", "gather", "index_select", "scatter_add_", "index_put_", "select_backward")
_NO_KERNEL = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "alias")
_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "_int_mm")
_QUANTIZED_PRODUCTS = ("gemm_4bit", "int8_scaled_mm", "int8_mixed_scaled_mm")


def trace(model: Any, recipe: Recipe, context: int, kind: str) -> Trace:
    """One micro-step of `recipe` at `context` tokens on a device of `kind`, one of those of a TraceKey.

    `model` is what harness.train.meta_model.build_meta_model gave; it may be traced at several contexts.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    batch = random_batch(1, context, recipe, torch.device("meta"), seed=0)
    # As in a step's second micro-step: the gradients are there already.
    for p in trained:
        p.grad = torch.empty_like(p)
    # The recorder sees what the step makes; weights, gradients and states are added by _memory.
    recorder = OpRecorder(model.config.get_text_config().vocab_size)
    with without_storage(), attention.traced_as(kind), _kernels(recorder, kind), recorder:
        loss = loss_of(recipe)(model, batch)
        recorder.backward = True
        loss.backward()
    del loss
    for p in trained:
        p.grad = None
    ops = tuple(
        Op(op_kind, backward, dtype, flops, size, count, shape)
        for (op_kind, backward, dtype, flops, size, shape), count in recorder.ops.items()
    )
    state = sum(p.numel() * p.element_size() for p in trained)
    return Trace(ops, _memory(model, state, recorder), count_params(model), sum(p.numel() for p in trained),
                 recipe.micro_batch, context)  # fmt: skip


def _memory(model: torch.nn.Module, adapter_bytes: int, recorder: "OpRecorder") -> Memory:
    frozen_bytes = {
        p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in model.parameters() if not p.requires_grad
    }
    buffers = sum(b.untyped_storage().nbytes() for b in model.buffers())
    adapted = any("lora_" in name for name, _ in model.named_parameters())
    return replace(
        recorder.peak_memory,
        weights=sum(frozen_bytes.values()) + buffers + (0 if adapted else adapter_bytes),
        constants=_constants(model),
        adapters=adapter_bytes if adapted else 0,
        gradients=adapter_bytes,
        optimizer=2 * adapter_bytes,
    )


def _constants(model: torch.nn.Module) -> int:
    """Bytes of quantisation's scales and code tables."""
    tensors = []
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            states = [state, state.state2] if state.state2 is not None else [state]  # state2: double quantisation
            tensors += [tensor for s in states for tensor in (s.absmax, s.code)]
        elif (scales := getattr(getattr(module, "state", None), "SCB", None)) is not None:
            tensors.append(scales)
    # PEFT's layers show their base's weight as their own.
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())


class OpRecorder(TorchDispatchMode):
    """Counts operations and follows which storages live."""

    def __init__(self, vocab: int):
        super().__init__()
        self.vocab, self.backward = vocab, False
        self.ops: Counter[tuple[str, bool, str, float, float, _Shape]] = Counter()  # by the fields of Op but count
        self.peak_memory, self.peak_bytes, self.live_bytes = Memory(), 0, 0
        self.bytes_by_kind: Counter[str] = Counter()
        self.live: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            # transformers checks, for example, that positions are consecutive: in our batches they are.
            return True
        # New storages are tracked; an output with an input's storage is a view, or the input itself.
        out = func(*args, **kwargs)
        outputs = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, torch.Tensor)]
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        input_storages = {t.untyped_storage()._cdata for t in inputs}
        made = [t for t in outputs if t.untyped_storage()._cdata not in input_storages]
        for t in made:
            self.track(t)
        # Views and empty tensors launch nothing.
        name = func._schema.name.partition("::")[2]
        if name not in _NO_KERNEL and (made or func._schema.is_mutable):
            self.count(name, inputs, outputs, made, args)
        return out

    def track(self, tensor: torch.Tensor) -> None:
        """Counts a new storage as live until nothing refers to it any more."""
        # Kept by storage, because many tensors may view one.
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.live or not size:
            return
        self.live.add(key)
        logits = tensor.dim() > 1 and tensor.shape[-1] == self.vocab
        kind = "logits" if logits else "temporaries" if self.backward else "activations"
        weakref.finalize(storage, self.release, key, kind, size).atexit = False
        self.bytes_by_kind[kind] += size
        self.live_bytes += size
        self.update_peak()

    def release(self, key: int, kind: str, size: int) -> None:
        self.live.discard(key)
        self.bytes_by_kind[kind] -= size
        self.live_bytes -= size

    def update_peak(self, scratch: int = 0) -> None:
        """Records the live bytes by kind if they are the most so far; `scratch` bytes live while one operation runs."""
        if self.live_bytes + scratch > self.peak_bytes:
            self.peak_bytes = self.live_bytes + scratch
            peak = dict(self.bytes_by_kind)
            peak["temporaries"] = peak.get("temporaries", 0) + scratch
            self.peak_memory = Memory(**peak)

    def count(self, name: str, inputs: list, outputs: list, made: list, args: tuple) -> None:
        if name in _QUANTIZED_PRODUCTS:
            self.quantized_product(name, args, outputs[0])
        elif name in _PRODUCTS:
            # addmm has a bias or an output before its two factors.
            *_, a, b = (t for t in inputs if t.dim() >= 2)
            flops = 2 * outputs[0].numel() * a.shape[-1]
            skinny = min(a.shape[-2], a.shape[-1], outputs[0].shape[-1]) < _SKINNY_BELOW
            batched = name.endswith(("bmm", "bmm_"))
            kind = ATTENTION if batched else SKINNY_GEMM if skinny else GEMM
            self.add(kind, a.dtype, flops, _bytes([a, b, *outputs]))
        elif name.startswith("dequantize"):
            self.add(DEQUANTIZE, outputs[0].dtype, 0, _bytes([*inputs, *outputs]))
        elif name in _SPARSE:
            self.add(BANDWIDTH, outputs[0].dtype, 0, 2 * _bytes(made or inputs[-1:]))
        elif name in ("zeros_like", "zeros", "fill_", "zero_", "new_zeros", "ones_like", "full", "ones", "arange"):
            self.add(BANDWIDTH, outputs[0].dtype, 0, _bytes(outputs))
        else:
            # In place: the first input is read and written.
            moved = _bytes([*inputs, *(made or inputs[:1])])
            self.add(BANDWIDTH, (made or outputs or inputs)[0].dtype, 0, moved)

    def quantized_product(self, name: str, args: tuple, out: torch.Tensor) -> None:
        """bitsandbytes multiplies 8 bits as they are. 4 bits it unpacks as it multiplies, or all before, into a buffer:
        the card decides (harness.predict.gemm_4bit). The backward, when most is held, always has the buffer."""
        a = args[0]
        rows, inner = prod(a.shape[:-1]), a.shape[-1]
        values, flops = inner * out.shape[-1], 2 * rows * inner * out.shape[-1]
        if name == "gemm_4bit":
            self.update_peak(values * a.element_size())
            self.add(FUSED_4BIT, a.dtype, flops, _bytes([a, out]) + values // 2, (rows, out.shape[-1], inner))
        else:
            self.add(GEMM, a.dtype if a.is_floating_point() else out.dtype, flops, _bytes([a, out]) + values)

    def add(self, kind: str, dtype: torch.dtype, flops: float, size: float, shape: _Shape = None) -> None:
        self.ops[kind, self.backward, _NAMES.get(dtype, "fp32"), float(flops), float(size), shape] += 1


def _bytes(tensors: list) -> int:
    """Bytes moved by reading or writing every tensor once; an expanded one counts its storage."""
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


@contextmanager
def _kernels(recorder: OpRecorder, kind: str) -> Iterator[None]:
    """Replaces the functions that a device runs as one kernel and the meta device would decompose.

    The functions themselves, because a mode would be off when checkpointing recomputes in the backward.
    """

    # The parameters are those of torch.nn.functional.scaled_dot_product_attention.
    def attend(  # noqa: PLR0913
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        if kind == MATH_ATTENTION:
            return math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[0]
        return _FusedAttention.apply(query, key, value, recorder, 0.5 if is_causal else 1.0)

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


class _FusedAttention(torch.autograd.Function):
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
        recorder.add(ATTENTION, query.dtype, 2 * ctx.flops, _bytes([query, key, value, out]))
        return out

    @staticmethod
    def backward(ctx, grad):
        # Backward: the weights again, then the gradients of weights, values, queries and keys.
        saved = ctx.saved_tensors
        grads = [torch.empty_like(t) for t in saved[:3]]
        ctx.recorder.add(ATTENTION, grad.dtype, 5 * ctx.flops, _bytes([grad, *saved, *grads]))
        return *grads, None, None
