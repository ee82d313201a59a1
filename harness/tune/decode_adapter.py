"""The adapter while a model answers: nothing is cast per token, and afterwards every module is what it was before.

In training A and B are rounded to the activations' dtype at every use, because they change at every step. While a model
answers they do not. In fp32 they are merged into a copy of the matrix, one product for three. In 16 bits that would
lose most of a small adapter, whose values are below half a unit in the last place of the weights': A and B are rounded
once, as training rounds them. So it is for quantised matrices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear

from harness.train.patch import LoraLayer, vanilla_lora


@contextmanager
def adapter_for_answers(model: Any, merge_bytes: float = float("inf")) -> Iterator[None]:
    """Within it the plain LoRA layers of `model` have forwards without casts; no parameter is changed.

    Copies of matrices take up to `merge_bytes`; DoRA and adapters with dropout are left to PEFT.
    """
    dtype = model.get_input_embeddings().weight.dtype
    replaced: list[tuple[Any, Any]] = []
    try:
        for module in model.modules():
            if not isinstance(module, LoraLayer) or (parts := vanilla_lora(module)) is None:
                continue
            a, b, scaling = parts
            base = module.get_base_layer()
            merges = type(base) is torch.nn.Linear and base.weight.dtype == torch.float32
            if merges and (size := 4 * base.weight.numel()) <= merge_bytes:
                merge_bytes -= size
                forward = _merged(base, a, b, scaling)
            else:
                forward = _rounded(base, a, b, scaling, dtype)
            replaced.append((module, module.__dict__.get("forward")))
            module.forward = forward
        yield
    finally:
        for module, before in replaced:
            if before is None:
                del module.forward
            else:
                module.forward = before


def _merged(base: Any, a: Any, b: Any, scaling: float) -> Callable[..., torch.Tensor]:
    weight = torch.addmm(base.weight.detach(), b.weight.detach() * scaling, a.weight.detach())
    return lambda x, *args, **kwargs: linear(x, weight, base.bias)


def _rounded(base: Any, a: Any, b: Any, scaling: float, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """As harness.train.ops.lora.LoraLinear and LoraAddition compute it, with A and B rounded beforehand."""
    a_low, b_low = a.weight.detach().to(dtype).t(), (b.weight.detach() * scaling).to(dtype).t()

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        flat, out = x.reshape(-1, x.shape[-1]), base(x)
        inner = flat @ a_low.to(x.dtype)
        return torch.addmm(out.reshape(-1, out.shape[-1]), inner, b_low.to(x.dtype)).view(out.shape)

    return forward
