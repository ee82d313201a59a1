"""The model with its adapter on torch's meta device: every shape and dtype of the real one, no storage."""

from dataclasses import replace
from types import MethodType
from typing import Any

import torch

from harness.catalog.accelerators import CPU
from harness.catalog.precisions import INT8, Precision, Quantization
from harness.errors import Unsupported
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import FULL, REFERENCE, ModelSpec, Recipe
from harness.train import check, random_init, recompute
from harness.train import model as models
from harness.train.adapter import add_adapter, prepare_for_kbit
from harness.train.compat import quiet
from harness.train.ops import experts
from harness.train.quantize import quantized_weight, replace_linear_layers


def build_meta_model(spec: ModelSpec, precision: Precision, compute: str, recipe: Recipe, kind: str) -> Any:
    """What harness.train.model.load returns on a device of `kind` ("cpu", "cuda"), without storage.

    Takes a second for any size. Raises Unsupported where the architecture cannot be built or not be trained as the
    recipe says.
    """
    if recipe.method == FULL and precision.quantized:
        raise Unsupported("full fine-tuning needs weights that are not quantised; choose fp32, bf16 or fp16")
    # The base, quantised as on the real device.
    dtype = TORCH_DTYPES[compute]
    model: Any = random_init.on_meta(models.as_measured(spec, recipe), dtype)
    if precision.quantization:
        _quantize(model, precision.quantization, dtype, kind)
    if recipe.prepared_for_kbit and precision.quantized:
        prepare_for_kbit(model)
    # The frozen base gets an adapter, unless all weights are trained.
    if recipe.method != FULL:
        model.requires_grad_(False)
        with torch.device("meta"):
            model = add_adapter(model, recipe)
    # Full fine-tuning is traced with transformers' own modules: our operations give the base no gradient.
    if recipe.implementation == REFERENCE or recipe.method == FULL:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        check.use_plain_attention(base)
    else:
        check.apply(model, check.supported(model.config, recipe), compare=False)
    experts.use_balanced(model)
    recompute.apply(model, recipe.gradient_checkpointing)
    with quiet():
        model.train()
    return model


def _quantize(model: Any, quantization: Quantization, dtype: torch.dtype, kind: str) -> None:
    """Every linear layer but the head becomes bitsandbytes', as harness.train.random_init has it."""
    meta = torch.device("meta")
    # Without a threshold: how many columns pass it depends on the values, which are none here.
    quantization = replace(quantization, threshold=0.0)
    layers = replace_linear_layers(
        model,
        quantization,
        meta,
        lambda layer: quantized_weight(torch.empty(layer.weight.shape, dtype=dtype, device=meta), quantization),
    )
    for layer in layers if quantization.kind == INT8 else ():
        layer.state.CB, layer.state.SCB = layer.weight.CB, layer.weight.SCB
        if kind == CPU:  # bitsandbytes looks at the input's device, which is meta here
            layer.forward = MethodType(_forward_int8_on_cpu, layer)


def _forward_int8_on_cpu(self: Any, x: torch.Tensor) -> torch.Tensor:
    """What bitsandbytes computes on a CPU in training: a plain product with the matrix widened to x's dtype."""
    from bitsandbytes.autograd._functions import MatMul8bitFp

    return MatMul8bitFp.apply(x, self.weight, None, self.bias, self.state)
