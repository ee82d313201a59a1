"""Puts our own operations (harness.train.ops.lora, harness.train.ops.pointwise) into a model of transformers and PEFT,
where they compute the same.

A model's classes differ from family to family, so nothing is taken on trust: every replacement of a class is compared
with what it replaces, values and gradients, on random inputs; what differs by more than the dtype's rounding stays as
it was. The modules stay the same objects with the same parameters, so saving, counting and generating work as before.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from harness.catalog.kernels import PLAIN
from harness.train import recompute
from harness.train.agreement import agrees, close, passes
from harness.train.compat import import_peft
from harness.train.ops import joint_lora, pointwise, rotary
from harness.train.ops.cross_entropy import AnswerLosses
from harness.train.ops.lora import LoraAddition, LoraLinear
from harness.train.ops.pointwise import Pointwise

LoraLayer = import_peft().tuners.lora.LoraLayer
_ROUNDED = "rounded_matrices"  # attribute of a patched model
_OWN_HEAD = "computes_answer_losses"  # attribute of a patched model
LOSS = "the loss"  # among what stayed as it was
ALL = ("lora", "norm", "gated", "rotary", "last", "head")


def patch_model(
    model: Any, which: tuple[str, ...] = ALL, check: bool = True, kernel: str = PLAIN, left: Sequence[str] = ()
) -> list[str]:
    """Replaces in `model` (one of PEFT's) what `which` names; returns the names of what stayed as it was.

    `kernel` is that of the pointwise parts; where it computes something else, the plain ones are tried. Without
    `check`, for a model without storage, the first candidate is taken untried; classes named in `left` stay.
    """
    dtype = model.get_input_embeddings().weight.dtype
    kernels = [pointwise.of(name) for name in dict.fromkeys((kernel, PLAIN))]
    unpatched: list[str] = []
    adapted: dict[str, tuple[Any, tuple]] = {}  # by name: a layer that our operations compute, and its A, B, scaling
    agreeing: dict[type, int | None] = {}  # by class: the index of the first candidate that computes the same
    for name, module in model.named_modules():
        candidates = [(kind, forward) for kind, forward in _candidates(module, kernels) if kind in which]
        if not candidates:
            continue
        # One module of a class is compared for all of them.
        if type(module) not in agreeing:
            indices = (
                i for i, (_, forward) in enumerate(candidates) if not check or passes(agrees, module, forward, dtype)
            )
            agreeing[type(module)] = None if type(module).__name__ in left else next(indices, None)
            if agreeing[type(module)] is None:
                unpatched.append(f"{type(module).__name__} of {name}")
        if (index := agreeing[type(module)]) is not None:
            kind, forward = candidates[index]
            module.forward = MethodType(forward, module)
            if kind == "gated":
                recompute.enable(module)
            if kind == "lora" and (parts := vanilla_lora(module)):
                adapted[name] = module, parts
    # Layers beside each other that take the same input share a step's products; attention rotates its own way.
    together = joint_lora.groups(adapted)
    setattr(model, _ROUNDED, joint_lora.rounded(adapted, together))
    for group in together:
        for number, layer in enumerate(group.layers):
            layer.forward = MethodType(partial(_joint, alone=layer.forward, group=group, number=number), layer)
    if "rotary" in which:
        for module in model.modules():
            if rotated := rotary.forward_of(module):
                module.forward = MethodType(rotated, module)
    # The last layer and the head go on with the tokens that have a loss alone.
    layers = getattr(_body(model), "layers", None)
    if "last" in which and layers is not None and (shortened := _last_layer(layers[-1])):
        layers[-1].forward = MethodType(shortened, layers[-1])
    if "head" in which and (not check or passes(_head_is_plain, model)):
        setattr(model, _OWN_HEAD, True)
    elif "head" in which:
        unpatched.append(LOSS)
    return unpatched


def answer_losses(
    model: Any, input_ids: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, **layout
) -> torch.Tensor:
    """Cross-entropy in nats, fp32 [sequences x rows], of `targets` after the tokens at `rows` of every sequence.

    `input_ids` is int64 [sequences, tokens], `rows` int64 [n], `targets` int64 [sequences x rows]; `layout` (position
    ids, packed lengths) goes to the layers.
    """
    hidden = _body(model)(input_ids=input_ids, use_cache=False, answer_rows=rows, **layout).last_hidden_state
    if hidden.shape[1] != len(rows):  # the last layer was not patched
        hidden = hidden[:, rows]
    head = model.get_output_embeddings()
    return AnswerLosses.apply(hidden.reshape(-1, hidden.shape[-1]), head.weight, head.bias, targets)


def rounded_matrices(model: torch.nn.Module) -> list[tuple[torch.Tensor, ...]]:
    """What a step of `model` requests of harness.train.ops.adapter_copies.AdapterCopies.rounded."""
    return getattr(model, _ROUNDED, [])


def has_own_head(model: torch.nn.Module) -> bool:
    """Whether `answer_losses` may be used: `patch_model` found that it equals the loss of the model's own logits."""
    return getattr(model, _OWN_HEAD, False)


def _head_is_plain(model: Any) -> bool:
    """Whether logits are the head's product with the body's output, compared on a few tokens."""
    head, vocab = model.get_output_embeddings(), model.get_input_embeddings().weight.shape[0]
    if type(head) is not torch.nn.Linear or not hasattr(model.get_base_model(), "get_decoder"):
        return False
    # Any tokens do: the two ways must give the same losses.
    device = head.weight.device
    ids = torch.arange(7, 15, device=device)[None] % vocab
    rows = torch.arange(3, 7, device=device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, rows].float()
        expected = cross_entropy(logits, ids[0, rows + 1], reduction="none")
        losses = answer_losses(model, ids, rows, ids[0, rows + 1])
    return close(losses, expected, head.weight.dtype)


def _body(model: Any) -> torch.nn.Module:
    """The decoder of a PEFT model: everything but the head."""
    return model.get_base_model().get_decoder()


def _candidates(module: Any, kernels: Sequence[Pointwise]) -> Iterator[tuple[str, Callable]]:
    """(kind, forward) of what might compute the same as `module`, judged by names; the best comes first."""
    if isinstance(module, LoraLayer):
        if (parts := vanilla_lora(module)) is not None:
            yield "lora", partial(_lora, parts=parts)
    elif type(module).__name__.endswith("RMSNorm") and not list(module.children()):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is not None and getattr(module, "weight", None) is not None:
            for kernel in kernels:
                yield "norm", _norm_of(kernel.norm, module.weight, eps, twice=True)  # Llama
                yield "norm", _norm_of(kernel.norm, (1 + module.weight.detach().float()), eps, twice=False)  # Gemma
    elif isinstance(getattr(module, "down_proj", None), torch.nn.Module):  # routed experts have bare matrices
        for gate in (gate for kernel in kernels for gate in (kernel.silu, kernel.gelu)):
            if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
                yield "gated", partial(_separate, gate=gate)
            elif hasattr(module, "gate_up_proj"):
                yield "gated", partial(_joined, gate=gate)


def vanilla_lora(layer: Any) -> tuple | None:
    """(A, B, scaling) of plain LoRA with one adapter; None for what is left to PEFT: dropout, DoRA, biases."""
    # PEFT keeps the adapters of a layer by name.
    names = list(layer.lora_A)
    if len(names) != 1 or layer.lora_variant or layer.merged or layer.disable_adapters:
        return None
    # A router, say, is a linear layer with a forward of its own.
    base = type(layer.get_base_layer())
    if base not in (torch.nn.Linear, Conv1D) and not base.__module__.startswith("bitsandbytes"):
        return None
    a, b = layer.lora_A[names[0]], layer.lora_B[names[0]]
    if a.bias is not None or b.bias is not None or not isinstance(layer.lora_dropout[names[0]], torch.nn.Identity):
        return None
    return a, b, layer.scaling[names[0]]


def _lora(self: Any, x: torch.Tensor, parts: tuple) -> torch.Tensor:
    a, b, scaling = parts
    base = self.base_layer
    if type(base) is torch.nn.Linear:
        return LoraLinear.apply(x, base.weight, base.bias, a.weight, b.weight, scaling)
    return LoraAddition.apply(base(x), x, a.weight, b.weight, scaling)


def _joint(self: Any, x: torch.Tensor, alone: Callable, group: joint_lora.Group, number: int) -> torch.Tensor:
    out = group.output(number, x)
    return alone(x) if out is None else out


def _norm_of(norm: Callable, weight: torch.Tensor, eps: float, twice: bool) -> Callable:
    return lambda self, x: norm(x, weight, eps, twice)


# Forwards of gated MLPs: gate and up as two matrices, or as one.
def _separate(self: Any, x: torch.Tensor, gate: Callable) -> torch.Tensor:
    return self.down_proj(recompute.recompute(self, lambda x: gate(self.gate_proj(x), self.up_proj(x)), x))


def _joined(self: Any, x: torch.Tensor, gate: Callable) -> torch.Tensor:
    return self.down_proj(recompute.recompute(self, lambda x: gate(*self.gate_up_proj(x).chunk(2, -1)), x))


def _last_layer(layer: Any) -> Callable | None:
    """A forward of the last layer that computes its MLP for the tokens with a loss alone: nothing reads the others.

    None where the layer is not built as Llama's or Gemma's.
    """
    # The names of its parts tell the architecture; dropouts that drop nothing may stand beside them.
    children = {name for name, _ in layer.named_children()}
    llama = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
    gemma = llama | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
    dropouts = {name for name in children if isinstance(getattr(layer, name), torch.nn.Dropout)}
    if children - dropouts not in (llama, gemma) or any(getattr(layer, name).p for name in dropouts):
        return None
    original, norms_outputs = layer.forward, children == gemma  # Gemma norms what a block adds, too

    def forward(self, hidden_states, *args, answer_rows=None, **kwargs):
        if args or answer_rows is None:
            return original(hidden_states, *args, **kwargs)
        # Attention needs every token, the MLP only those with a loss.
        attended = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)[0]
        if norms_outputs:
            kept = hidden_states[:, answer_rows] + self.post_attention_layernorm(attended[:, answer_rows])
            mlp_out = self.mlp(self.pre_feedforward_layernorm(kept))
            return kept + self.post_feedforward_layernorm(mlp_out)
        kept = hidden_states[:, answer_rows] + attended[:, answer_rows]
        return kept + self.mlp(self.post_attention_layernorm(kept))

    return forward
