"""The model with its adapter on torch's meta device: every shape and dtype of the real one, no storage."""

from types import MethodType

import torch

from harness.catalog.accelerators import CPU
from harness.catalog.precisions import Precision
from harness.errors import Unsupported
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import FULL, REFERENCE, ModelSpec, Recipe
from harness.train import model as models
from harness.train import random_init, recompute
from harness.train.compat import bitsandbytes_for, quiet
from harness.train.patch import patch_model


def build(spec: ModelSpec, precision: Precision, compute: str, recipe: Recipe, kind: str) -> torch.nn.Module:
    """What harness.train.model.load gives on a device of `kind`, without storage: a second for any size.

    Raises Unsupported where the architecture cannot be built, or not be trained as the recipe says.
    """
    if recipe.method == FULL and precision.quantized:
        raise Unsupported("full fine-tuning needs weights that are not quantised; choose fp32, bf16 or fp16")
    model = random_init.on_meta(models.as_measured(spec, recipe), TORCH_DTYPES[compute])
    if precision.quantized:
        _quantize(model, precision, kind)
    if recipe.prepared_for_kbit and precision.quantized:
        for p in model.parameters():
            if p.is_floating_point():
                p.data = p.data.float()
    if recipe.method != FULL:
        model.requires_grad_(False)
        with torch.device("meta"):
            model = models.add_adapter(model, recipe)
    if recipe.implementation == REFERENCE or recipe.method == FULL:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.set_attn_implementation("sdpa")
    else:
        patch_model(model, check=False)
    recompute.apply(model, recipe.gradient_checkpointing)
    with quiet():
        model.train()
    return model


def _quantize(model: torch.nn.Module, precision: Precision, kind: str) -> None:
    """Every linear layer but the head becomes bitsandbytes', as architecture.random_model has it."""
    bnb = bitsandbytes_for(torch.device("cpu"))  # on meta no kernel of a card is needed
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or layer is head:
            continue
        new = (_four_bit if precision.quantized == "nf4" else _eight_bit)(bnb, layer)
        if precision.quantized == "int8" and kind == CPU:  # bitsandbytes asks the input's device, which is meta here
            new.forward = MethodType(_widened, new)
        if layer.bias is not None:
            new.bias = torch.nn.Parameter(layer.bias.detach(), requires_grad=False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    model.is_loaded_in_4bit = precision.quantized == "nf4"
    model.is_loaded_in_8bit = precision.quantized == "int8"


def _four_bit(bnb, layer: torch.nn.Linear) -> torch.nn.Module:
    """NF4 with double quantisation: a byte for two values, a byte for 64, fp32 for 64 x 256 (QLoRA, section 3)."""
    new = bnb.nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype,
                            compress_statistics=True, quant_type="nf4", device="meta")  # fmt: skip
    blocks = -(-layer.weight.numel() // 64)

    def empty(count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(count, dtype=dtype, device="meta")

    second = bnb.functional.QuantState(
        absmax=empty(-(-blocks // 256), torch.float32), blocksize=256, code=empty(256, torch.float32),
        dtype=torch.float32,
    )  # fmt: skip
    state = bnb.functional.QuantState(
        absmax=empty(blocks, torch.uint8), shape=layer.weight.shape, blocksize=64, code=empty(16, torch.float32),
        quant_type="nf4", dtype=layer.weight.dtype, offset=torch.empty((), device="meta"), state2=second,
    )  # fmt: skip
    packed = torch.empty(-(-layer.weight.numel() // 2), 1, dtype=torch.uint8, device="meta")
    new.weight = bnb.nn.Params4bit(packed, requires_grad=False, quant_state=state, compress_statistics=True,
                                   quant_type="nf4", bnb_quantized=True)  # fmt: skip
    return new


def _eight_bit(bnb, layer: torch.nn.Linear) -> torch.nn.Module:
    # Without a threshold: how many columns stand out depends on the values, which are none here.
    new = bnb.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        has_fp16_weights=False,
        threshold=0.0,
        device="meta",
    )
    packed = torch.empty(layer.weight.shape, dtype=torch.int8, device="meta")
    scales = torch.empty(layer.out_features, dtype=torch.float32, device="meta")
    new.weight = bnb.nn.Int8Params(packed, requires_grad=False, has_fp16_weights=False, CB=packed, SCB=scales)
    new.state.CB, new.state.SCB = packed, scales
    return new


def _widened(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What bitsandbytes computes on a CPU in training: the matrix widened, and a plain product."""
    from bitsandbytes.autograd._functions import MatMul8bitFp

    return MatMul8bitFp.apply(x, self.weight, None, self.bias, self.state)
