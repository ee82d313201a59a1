"""Linear layers whose frozen matrix bitsandbytes keeps in 8 or 4 bits, built from a precision's `Quantization`.

Random weights, those of a GGUF and models without storage are quantised layer by layer here; other real weights by
transformers, as `bnb_config` tells it. A new kind is an entry in harness.catalog.precisions, and a case in
`linear_layer`, `quantized_weight` and `bnb_config`.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from harness.catalog.precisions import INT8, NF4, Quantization
from harness.errors import Unsupported
from harness.train.compat import bitsandbytes_for

_INITIALIZED = "_is_hf_initialized"  # attribute of parameters that transformers looks at
_SCALES_PER_BLOCK = 256  # of bitsandbytes' double quantisation


def replace_linear_layers(
    model: Any,
    quantization: Quantization,
    device: torch.device,
    weight_of: Callable[[torch.nn.Linear], torch.nn.Parameter],
) -> list[Any]:
    """Puts a quantised layer in the place of every linear layer but the head, as transformers does; returns them.

    `weight_of` gives the quantised matrix for a layer of weight [out, in], a new one at every call. Biases stay; those
    without storage are zero.
    """
    head, layers = model.get_output_embeddings(), []
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or layer is head:
            continue
        # The layer of bitsandbytes takes the shape, the new matrix and the bias.
        quantized = linear_layer(layer, quantization, device)
        quantized.weight = weight_of(layer)
        mark_initialized(quantized.weight)
        if layer.bias is not None:
            bias = layer.bias.detach()
            if bias.is_meta:
                bias = torch.zeros(layer.out_features, dtype=layer.weight.dtype, device=device)
            quantized.bias = torch.nn.Parameter(bias, requires_grad=False)
            mark_initialized(quantized.bias)
        # It takes the place of the linear layer in its parent module.
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, quantized)
        layers.append(quantized)
    # What PEFT looks at before it puts adapters beside quantised layers.
    model.is_loaded_in_4bit = quantization.kind == NF4
    model.is_loaded_in_8bit = quantization.kind == INT8
    return layers


def mark_initialized(param: torch.nn.Parameter) -> None:
    """Keeps transformers' `initialize_weights` from drawing the values of `param` anew."""
    setattr(param, _INITIALIZED, True)


def linear_layer(layer: torch.nn.Linear, quantization: Quantization, device: torch.device) -> Any:
    """bitsandbytes' layer of the shape and dtype of `layer`, without storage. Raises Unsupported for another kind."""
    bnb = bitsandbytes_for(device)
    shape = layer.in_features, layer.out_features, layer.bias is not None
    if quantization.kind == NF4:
        return bnb.nn.Linear4bit(
            *shape,
            compute_dtype=layer.weight.dtype,
            compress_statistics=quantization.double,
            quant_type=NF4,
            device="meta",
        )
    if quantization.kind == INT8:
        return bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False, threshold=quantization.threshold, device="meta")
    raise _unknown(quantization)


def quantized_weight(values: torch.Tensor, quantization: Quantization) -> torch.nn.Parameter:
    """`values` [out, in] quantised on their device; of a tensor on the meta device every shape and dtype.

    Raises Unsupported for a kind that is not known.
    """
    bnb = bitsandbytes_for(values.device)
    if quantization.kind == NF4:
        options = {"blocksize": quantization.block_size, "compress_statistics": quantization.double, "quant_type": NF4}
        if not values.is_meta:
            return bnb.nn.Params4bit(values, requires_grad=False, **options).to(values.device)
        # On meta nothing can be quantised, so the packed tensor and its state are made by their shapes.
        packed = torch.empty(-(-values.numel() // 2), 1, dtype=torch.uint8, device="meta")  # two values in a byte
        state = _nf4_state(values, quantization)
        return bnb.nn.Params4bit(packed, requires_grad=False, quant_state=state, bnb_quantized=True, **options)
    if quantization.kind == INT8:
        if values.is_meta:
            packed = torch.empty(values.shape, dtype=torch.int8, device="meta")
            scales = torch.empty(len(values), dtype=torch.float32, device="meta")
        else:  # by hand, because Int8Params quantises on its way from the CPU to a card only
            packed, scales, _ = bnb.functional.int8_vectorwise_quant(values.half())
        return bnb.nn.Int8Params(packed, requires_grad=False, has_fp16_weights=False, CB=packed, SCB=scales)
    raise _unknown(quantization)


def _nf4_state(values: torch.Tensor, quantization: Quantization) -> Any:
    """bitsandbytes' QuantState without storage: a byte per block, or fp32 where scales are not quantised in turn.

    Double quantisation adds fp32 per 256 blocks (QLoRA, Dettmers et al. 2023, section 3). Raises Unsupported without a
    block size.
    """
    if quantization.block_size is None:
        raise Unsupported("4-bit quantisation needs the number of values per block")
    QuantState = bitsandbytes_for(values.device).functional.QuantState
    # Values are quantised across rows: the last block alone may be short.
    blocks = -(-values.numel() // quantization.block_size)

    def empty(count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(count, dtype=dtype, device="meta")

    nested = {}
    if quantization.double:
        scales_of_scales = empty(-(-blocks // _SCALES_PER_BLOCK), torch.float32)
        second = QuantState(absmax=scales_of_scales, blocksize=_SCALES_PER_BLOCK, code=empty(256, torch.float32),
                            dtype=torch.float32)  # fmt: skip
        nested = {"offset": torch.empty((), device="meta"), "state2": second}
    return QuantState(
        absmax=empty(blocks, torch.uint8 if quantization.double else torch.float32),
        shape=values.shape,
        blocksize=quantization.block_size,
        code=empty(16, torch.float32),
        quant_type=NF4,
        dtype=values.dtype,
        **nested,
    )


def bnb_config(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers quantises weights from disk, for products in `dtype`.

    Raises Unsupported for a kind that is not known, and for a block size that transformers has no option for.
    """
    if quantization.kind == NF4:
        if quantization.block_size != 64:
            raise Unsupported(f"transformers loads 4-bit blocks of 64 values, not of {quantization.block_size}")
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=NF4,
            bnb_4bit_use_double_quant=quantization.double,
            bnb_4bit_compute_dtype=dtype,
        )
    if quantization.kind == INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=quantization.threshold)
    raise _unknown(quantization)


def _unknown(quantization: Quantization) -> Unsupported:
    return Unsupported(f"no layer is quantised as {quantization.kind!r}; known: {NF4}, {INT8}")
