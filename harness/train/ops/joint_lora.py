"""Adapted layers that take the same input, computed together: queries, keys and values, or gate and up.

Each alone is three products forward and five backward (harness.train.ops.lora); together they share those with x.
Only within a step (harness.train.ops.adapter_copies), which keeps their matrices A as one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from harness.train.ops import adapter_copies

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # names of layers beside each other


class Group:
    """Layers of PEFT's, with (A, B, scaling) of each; the first one called computes for all."""

    def __init__(self, layers: Sequence[Any], parts: Sequence[tuple]):
        self.layers, self.scalings = tuple(layers), tuple(scaling for _, _, scaling in parts)
        self.a, self.b = tuple(a.weight for a, _, _ in parts), tuple(b.weight for _, b, _ in parts)
        self.ranks = [a.shape[0] for a in self.a]
        self.works = True  # False once an output was not fetched: then another layer has another input

    def output(self, number: int, x: torch.Tensor) -> torch.Tensor | None:
        """What layer `number` gives for x; None where it is to be computed alone."""
        copies = adapter_copies.current()
        if not (self.works and copies.keeps) or x.dtype == self.a[0].dtype:
            return None
        # The others' outputs wait in the step, so that a failed one leaves none.
        source, version, outputs = copies.outputs.get(id(self), (None, 0, {}))
        if source is not x or version != x._version or number not in outputs:
            self.works = not outputs
            if not self.works:
                del copies.outputs[id(self)]
                return None
            # bitsandbytes' layers multiply themselves, with a backward of their own.
            plain = all(type(layer.base_layer) is torch.nn.Linear for layer in self.layers)
            added = () if plain else tuple(layer.base_layer(x) for layer in self.layers)
            outputs = dict(enumerate(_Joint.apply(x, self, copies, *self.a, *self.b, *added)))
            copies.outputs[id(self)] = x, x._version, outputs
        out = outputs.pop(number)
        if not outputs:
            del copies.outputs[id(self)]
        return out


def groups(ours: dict[str, tuple[Any, tuple]]) -> list[Group]:
    """The groups among layers that our operations compute: {whole name: (layer, its A, B and scaling)}."""
    made = []
    for name in ours:
        block, dot, last = name.rpartition(".")
        for names in TOGETHER:
            members = [ours.get(f"{block}{dot}{part}") for part in names]
            if last == names[0] and all(members):
                layers, parts = zip(*members, strict=True)  # type: ignore[arg-type]
                alike = {
                    (a.weight.shape[1], type(layer.base_layer)) for layer, (a, _, _) in zip(layers, parts, strict=True)
                }
                if len(alike) == 1:
                    made.append(Group(layers, parts))
    return made


def rounded(ours: dict[str, tuple[Any, tuple]], together: Sequence[Group]) -> list[tuple[torch.Tensor, ...]]:
    """The matrices that a step rounds as one each: A of a group, all others alone."""
    grouped = {id(layer) for group in together for layer in group.layers}
    alone = [part.weight for layer, (a, b, _) in ours.values() if id(layer) not in grouped for part in (a, b)]
    alone += [matrix for group in together for matrix in group.b]
    return [group.a for group in together] + [(matrix,) for matrix in alone]


class _Joint(torch.autograd.Function):
    """(x, group, copies, A and B of each layer, bases' outputs or none) -> the output of each layer.

    As LoraLinear, and LoraAddition where the bases' outputs are given.
    """

    @staticmethod
    def forward(ctx, x, group, copies, *tensors):
        flat, count, added = x.reshape(-1, x.shape[-1]), len(group.a), tensors[2 * len(group.a) :]
        a = copies.rounded(group.a, x.dtype)
        b = [copies.rounded((matrix,), x.dtype) for matrix in group.b]
        inner = flat @ a.t()
        if added:
            outs, frozen = [part.reshape(-1, part.shape[-1]) for part in added], []
        else:
            frozen = [layer.base_layer.weight for layer in group.layers]
            outs = [linear(flat, w, layer.base_layer.bias) for w, layer in zip(frozen, group.layers, strict=True)]
        # A base's output given from outside is somebody else's to keep.
        add = torch.addmm if added else torch.Tensor.addmm_
        parts = zip(outs, inner.split(group.ranks, 1), b, group.scalings, strict=True)
        outs = [add(out, part, matrix.t(), alpha=scaling) for out, part, matrix, scaling in parts]
        ctx.save_for_backward(flat, a, inner, *b, *frozen)
        ctx.group, ctx.copies, ctx.count, ctx.shape = group, copies, count, x.shape
        return tuple(torch.ops.aten._unsafe_view(out, (*x.shape[:-1], out.shape[-1])) for out in outs)

    @staticmethod
    def backward(ctx, *grads):
        flat, a, inner, *rest = ctx.saved_tensors
        group, b, frozen = ctx.group, rest[: ctx.count], rest[ctx.count :]
        rows = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        grad_inner, grad_b = torch.empty_like(inner), []
        parts = (part.split(group.ranks, 1) for part in (inner, grad_inner))
        for grad, matrix, part, grad_part, scaling in zip(rows, b, *parts, group.scalings, strict=True):
            # With a beta of 0 what is added to only has the shape of the result.
            grad_part.addmm_(grad, matrix, beta=0, alpha=scaling)
            grad_b.append(torch.addmm(matrix, grad.t(), part, beta=0, alpha=scaling))
        grad_a = (grad_inner.t() @ flat).split(group.ranks)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = grad_inner @ a
            for grad, weight in zip(rows, frozen, strict=False):
                dx.addmm_(grad, weight)
            dx = dx.view(ctx.shape)
        pairs = zip((*group.a, *group.b), (*grad_a, *grad_b), strict=True)
        trained = [ctx.copies.take(matrix, grad) for matrix, grad in pairs]
        return dx, None, None, *trained, *(() if frozen else grads)
