"""What a micro-step does, operation by operation, without device, weights or storage.

The model is built on torch's meta device with its adapter and recipe. Training's own forward and backward run on it
under a dispatch mode that sees every operation: its FLOPs, its bytes, its dtype, and which storages live.
Fused attention is counted as the kernel that the device has (nothing of tokens x tokens is held; a card before 8.0 has
none for bf16), quantised layers by bitsandbytes' own operations, each in the shapes that it has. Any architecture that
transformers builds is traced so.
"""

import weakref
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.catalog import optimizers
from harness.catalog.optimizers import Optimizer
from harness.hardware.device import TORCH_DTYPES
from harness.predict.meta_kernels import bytes_moved, kernels
from harness.predict.roofline import ATTENTION, BANDWIDTH, DEQUANTIZE, FUSED_4BIT, GEMM, SKINNY_GEMM, Memory, Op, Trace
from harness.records.cell import FULL, REFERENCE, Recipe
from harness.train import meta_autocast, recompute
from harness.train.batches import random_batch
from harness.train.compat import without_storage
from harness.train.losses import loss_of, under_autocast
from harness.train.model import count_params
from harness.train.ops import adapter_copies, attention
from harness.train.patch import rounded_matrices

_Shape = tuple[int, int, int] | None
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_SKINNY_BELOW = 128  # the smallest side of a product that a device runs at its rate
# What reads and writes only the rows that it is asked for.
_SPARSE = ("embedding", "index", "gather", "index_select", "scatter_add_", "index_put_", "select_backward")
_NO_KERNEL = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "alias")
_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "_int_mm")
_QUANTIZED_PRODUCTS = ("gemm_4bit", "int8_scaled_mm", "int8_mixed_scaled_mm")


def trace(model: Any, recipe: Recipe, context: int, kind: str, compute: str = "fp32") -> Trace:
    """One micro-step of `recipe` at `context` tokens on a device of `kind`, one of those of a TraceKey.

    `compute` is the dtype of autocast, where the recipe has it.

    `model` is what harness.train.meta_model.build_meta_model gave; it may be traced at several contexts.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    batch = random_batch(1, context, recipe, torch.device("meta"), seed=0)
    # As in a step's second micro-step: the gradients are there already.
    for p in trained:
        p.grad = torch.empty_like(p)
    # The recorder sees what the step makes; weights, gradients and states are added by _memory.
    recorder = OpRecorder(model.config.get_text_config().vocab_size)
    dtype = TORCH_DTYPES[compute]
    copies = adapter_copies.AdapterCopies(keeps=not recompute.recomputes_all(model))
    copies.expect(rounded_matrices(model), model.get_input_embeddings().weight.dtype)
    traced = ExitStack()
    with without_storage(), meta_autocast.patched(), attention.traced_as(kind), kernels(recorder, kind), traced:
        traced.enter_context(recorder)
        traced.enter_context(copies.used())
        loss = loss_of(recipe, dtype)(model, batch)
        recorder.backward = True
        with meta_autocast.recomputed(dtype if under_autocast(recipe, dtype) else None):
            loss.backward()
    del loss
    for p in trained:
        p.grad = None
    ops = tuple(
        Op(op_kind, backward, dtype, flops, size, count, shape)
        for (op_kind, backward, dtype, flops, size, shape), count in recorder.ops.items()
    )
    memory = _memory(model, trained, optimizers.find(recipe.optimizer), recorder)
    # Our own step's backward is written in Python.
    engine = recorder.by_engine if recipe.implementation == REFERENCE or recipe.method == FULL else 0
    values = sum(p.numel() for p in trained)
    return Trace(ops, memory, count_params(model), values, recipe.micro_batch, context, by_engine=engine)


def _memory(
    model: torch.nn.Module, trained: list[torch.nn.Parameter], optimizer: Optimizer, recorder: "OpRecorder"
) -> Memory:
    values = sum(p.numel() for p in trained)
    adapter_bytes = sum(p.numel() * p.element_size() for p in trained)
    states = 2 * adapter_bytes if optimizer.states is None else optimizer.states * values
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
        optimizer=states + optimizer.masters * values,
        update=optimizer.temporaries * (optimizer.masters * values or adapter_bytes),
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
        self.by_engine = 0  # operations that autograd's engine launched, without Python
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
            # Of a product in one kernel; the factors of a batch of them are no matrices.
            shape = None if batched else (prod(outputs[0].shape[:-1]), outputs[0].shape[-1], a.shape[-1])
            self.add(kind, a.dtype, flops, bytes_moved([a, b, *outputs]), shape)
        elif name.startswith("dequantize"):
            self.add(DEQUANTIZE, outputs[0].dtype, 0, bytes_moved([*inputs, *outputs]))
        elif name in _SPARSE:
            self.add(BANDWIDTH, outputs[0].dtype, 0, 2 * bytes_moved(made or inputs[-1:]))
        elif name in ("zeros_like", "zeros", "fill_", "zero_", "new_zeros", "ones_like", "full", "ones", "arange"):
            self.add(BANDWIDTH, outputs[0].dtype, 0, bytes_moved(outputs))
        else:
            # In place: the first input is read and written.
            moved = bytes_moved([*inputs, *(made or inputs[:1])])
            self.add(BANDWIDTH, (made or outputs or inputs)[0].dtype, 0, moved)

    def quantized_product(self, name: str, args: tuple, out: torch.Tensor) -> None:
        """bitsandbytes multiplies 8 bits as they are. 4 bits it unpacks as it multiplies, or all before, into a buffer:
        the card decides (harness.predict.gemm_4bit). The backward, when most is held, always has the buffer."""
        a = args[0]
        rows, inner = prod(a.shape[:-1]), a.shape[-1]
        values, flops = inner * out.shape[-1], 2 * rows * inner * out.shape[-1]
        if name == "gemm_4bit":
            self.update_peak(values * a.element_size())
            self.add(FUSED_4BIT, a.dtype, flops, bytes_moved([a, out]) + values // 2, (rows, out.shape[-1], inner))
        else:
            self.add(GEMM, a.dtype if a.is_floating_point() else out.dtype, flops, bytes_moved([a, out]) + values)

    def add(self, kind: str, dtype: torch.dtype, flops: float, size: float, shape: _Shape = None) -> None:
        # A forward that is made again in the backward runs with gradients, the engine's own operations without.
        self.by_engine += self.backward and not torch.is_grad_enabled()
        self.ops[kind, self.backward, _NAMES.get(dtype, "fp32"), float(flops), float(size), shape] += 1
