"""Puts our own operations (harness.train.ops.lora, harness.train.ops.pointwise) into a model of transformers and PEFT,
where they compute the same.

A model's classes differ from family to family, so nothing is taken on trust: each replacement of a kind is compared
with what it replaces, values and gradients, on random numbers; what differs by more than the dtype's rounding stays as
it was. The modules stay the same objects with the same parameters, so saving, counting and generating go on as before.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import MethodType

import torch
from torch.nn.functional import cross_entropy

from harness.catalog.kernels import PLAIN
from harness.train import recompute
from harness.train.compat import import_peft
from harness.train.ops import pointwise
from harness.train.ops.cross_entropy import AnswerLosses
from harness.train.ops.lora import LoraAddition, LoraLinear
from harness.train.ops.pointwise import Pointwise

LoraLayer = import_peft().tuners.lora.LoraLayer
# Of the largest value: what two orders of rounding may differ by in some products of a row.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_OWN_HEAD = "computes_answer_losses"
ALL = ("lora", "norm", "gated", "last", "head")


def patch_model(
    model: torch.nn.Module, which: tuple[str, ...] = ALL, check: bool = True, kernel: str = PLAIN
) -> list[str]:
    """Replaces in `model` (one of PEFT's) what `which` names; names what stayed as transformers has it.

    `kernel` is that of the pointwise parts; where it computes something else, the plain ones are tried. Without
    `check`, for a model without storage, every replacement that looks right is taken.
    """
    dtype = model.get_input_embeddings().weight.dtype
    left, trusted, kernels = [], {}, [pointwise.of(name) for name in dict.fromkeys((kernel, PLAIN))]
    for name, module in model.named_modules():
        candidates = [(kind, forward) for kind, forward in _candidates(module, kernels) if kind in which]
        if not candidates:
            continue
        if type(module) not in trusted:
            agreeing = (
                i for i, (_, forward) in enumerate(candidates) if not check or _tried(_agrees, module, forward, dtype)
            )
            trusted[type(module)] = next(agreeing, None)
            if trusted[type(module)] is None:
                left.append(f"{type(module).__name__} of {name}")
        if (chosen := trusted[type(module)]) is not None:
            kind, forward = candidates[chosen]
            module.forward = MethodType(forward, module)
            if kind == "gated":
                recompute.enable(module)
    layers = getattr(_body(model), "layers", None)
    if "last" in which and layers is not None and (forward := _last_layer(layers[-1])):
        layers[-1].forward = MethodType(forward, layers[-1])
    if "head" in which and (not check or _tried(_head_is_plain, model)):
        setattr(model, _OWN_HEAD, True)
    elif "head" in which:
        left.append("the loss")
    return left


def answer_losses(
    model: torch.nn.Module, input_ids: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, **how
) -> torch.Tensor:
    """Cross-entropy in nats, fp32 [sequences x rows], of `targets` after the tokens at `rows` of each sequence.

    `input_ids` is int64 [sequences, tokens], `rows` int64 [n]; `how` goes to the layers.
    """
    hidden = _body(model)(input_ids=input_ids, use_cache=False, answer_rows=rows, **how).last_hidden_state
    if hidden.shape[1] != len(rows):
        hidden = hidden[:, rows]
    head = model.get_output_embeddings()
    return AnswerLosses.apply(hidden.reshape(-1, hidden.shape[-1]), head.weight, head.bias, targets)


def has_own_head(model: torch.nn.Module) -> bool:
    """Whether `answer_losses` may be asked: `patch_model` found that it gives what the model's own logits give."""
    return getattr(model, _OWN_HEAD, False)


def _head_is_plain(model: torch.nn.Module) -> bool:
    """Whether logits are the head's product with the body's output: compared on a few tokens."""
    head, vocab = model.get_output_embeddings(), model.get_input_embeddings().weight.shape[0]
    if type(head) is not torch.nn.Linear or not hasattr(model.get_base_model(), "get_decoder"):
        return False
    device = head.weight.device
    ids = torch.arange(7, 15, device=device)[None] % vocab
    rows = torch.arange(3, 7, device=device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, rows].float()
        expected = cross_entropy(logits, ids[0, rows + 1], reduction="none")
        found = answer_losses(model, ids, rows, ids[0, rows + 1])
    return _close(found, expected, head.weight.dtype)


def _body(model: torch.nn.Module) -> torch.nn.Module:
    return model.get_base_model().get_decoder()


def _candidates(module: torch.nn.Module, kernels: Sequence[Pointwise]) -> Iterator[tuple[str, Callable]]:
    """(kind, forward) of what might compute the same as `module`, the first that does is taken."""
    if isinstance(module, LoraLayer):
        if (parts := _vanilla(module)) is not None:
            yield "lora", partial(_lora, parts=parts)
    elif type(module).__name__.endswith("RMSNorm") and not list(module.children()):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is not None and getattr(module, "weight", None) is not None:
            for own in kernels:
                yield "norm", _norm_of(own.norm, module.weight, eps, twice=True)
                yield "norm", _norm_of(own.norm, (1 + module.weight.detach().float()), eps, twice=False)
    elif hasattr(module, "down_proj"):
        for gate in (gate for own in kernels for gate in (own.silu, own.gelu)):
            if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
                yield "gated", partial(_separate, gate=gate)
            elif hasattr(module, "gate_up_proj"):
                yield "gated", partial(_joined, gate=gate)


def _vanilla(layer: torch.nn.Module) -> tuple | None:
    """What plain LoRA of one adapter is made of; None for what only PEFT should compute: dropout, DoRA, biases."""
    names = list(layer.lora_A)
    if len(names) != 1 or layer.lora_variant or layer.merged or layer.disable_adapters:
        return None
    a, b = layer.lora_A[names[0]], layer.lora_B[names[0]]
    if a.bias is not None or b.bias is not None or not isinstance(layer.lora_dropout[names[0]], torch.nn.Identity):
        return None
    return a, b, layer.scaling[names[0]]


def _lora(self: torch.nn.Module, x: torch.Tensor, parts: tuple) -> torch.Tensor:
    a, b, scaling = parts
    base = self.base_layer
    if type(base) is torch.nn.Linear:
        return LoraLinear.apply(x, base.weight, base.bias, a.weight, b.weight, scaling)
    return LoraAddition.apply(base(x), x, a.weight, b.weight, scaling)


def _norm_of(norm: Callable, weight: torch.Tensor, eps: float, twice: bool) -> Callable:
    return lambda self, x: norm(x, weight, eps, twice)


def _separate(self: torch.nn.Module, x: torch.Tensor, gate: Callable) -> torch.Tensor:
    return self.down_proj(recompute.recompute(self, lambda x: gate(self.gate_proj(x), self.up_proj(x)), x))


def _joined(self: torch.nn.Module, x: torch.Tensor, gate: Callable) -> torch.Tensor:
    return self.down_proj(recompute.recompute(self, lambda x: gate(*self.gate_up_proj(x).chunk(2, -1)), x))


def _last_layer(layer: torch.nn.Module) -> Callable | None:
    """The last layer's forward, which after attention goes on with the tokens that have a loss alone.

    None of the others is looked at again. None where the layer is built another way.
    """
    children = {name for name, _ in layer.named_children()}
    llama = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
    gemma = llama | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
    silent = {name for name in children if isinstance(getattr(layer, name), torch.nn.Dropout)}
    if children - silent not in (llama, gemma) or any(getattr(layer, name).p for name in silent):
        return None
    original, sandwiched = layer.forward, children == gemma

    def forward(self, hidden_states, *args, answer_rows=None, **kwargs):
        if args or answer_rows is None:
            return original(hidden_states, *args, **kwargs)
        attended = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)[0]
        if sandwiched:
            kept = hidden_states[:, answer_rows] + self.post_attention_layernorm(attended[:, answer_rows])
            through = self.mlp(self.pre_feedforward_layernorm(kept))
            return kept + self.post_feedforward_layernorm(through)
        kept = hidden_states[:, answer_rows] + attended[:, answer_rows]
        return kept + self.mlp(self.post_attention_layernorm(kept))

    return forward


def _tried(comparison: Callable[..., bool], *of: object) -> bool:
    """The comparison, and False for a module that is asked in another way: only its name was like one that is known."""
    try:
        return comparison(*of)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        return False


def _agrees(module: torch.nn.Module, forward: Callable, dtype: torch.dtype) -> bool:
    """Whether `forward` gives what the module gives, and the same gradients of its input and of its adapter."""
    trained = [p for p in module.parameters() if p.requires_grad]
    before, device = [p.detach().clone() for p in trained], next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, _width(module), generator=generator).to(device, dtype)
    with torch.no_grad():  # an adapter starts at zero, where much is alike
        for p in trained:
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    found, expected = (_out_and_slopes(f, x, trained) for f in (partial(forward, module), module.forward))
    with torch.no_grad():
        for p, value in zip(trained, before, strict=True):
            p.copy_(value)
    alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    return alike and all(_close(a, b, dtype) for a, b in zip(found, expected, strict=True))


def _out_and_slopes(forward: Callable, x: torch.Tensor, trained: list[torch.Tensor]) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        out = forward(x)
        weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
        return [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), [x, *trained])]


def _close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    found, expected = found.float(), expected.float()
    return bool((found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max())


def _width(module: torch.nn.Module) -> int:
    """The last dimension of what the module takes."""
    inner = getattr(module, "base_layer", None) or getattr(module, "gate_proj", None)
    inner = inner or getattr(module, "gate_up_proj", None)
    if inner is None:
        return module.weight.shape[-1]
    return getattr(inner, "in_features", None) or inner.base_layer.in_features
