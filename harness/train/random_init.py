"""The real architecture of a model, without storage or with random weights."""

import copy

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from harness.catalog.precisions import Precision
from harness.errors import Unsupported, first_line
from harness.records.cell import ModelSpec
from harness.train.compat import bitsandbytes_for, quiet
from harness.train.ops import attention

_RANDOM_STD = 0.02
_BLOCK = (1 << 20) + 7  # values drawn once and repeated; odd, so that no two rows of a matrix are alike


def config_of(spec: ModelSpec) -> transformers.PretrainedConfig:
    """The transformers config of `spec`. Raises Unsupported where transformers does not know the architecture."""
    said = dict(spec.architecture)
    try:
        return AutoConfig.for_model(said.pop("model_type"), **said)
    except (ValueError, KeyError, TypeError) as problem:
        raise Unsupported(f"transformers {transformers.__version__} cannot build it: {first_line(problem)}") from None


def on_meta(spec: ModelSpec, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """The architecture without storage: a second for any size."""
    config = config_of(spec)
    try:
        with torch.device("meta"), quiet():
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.NAME)
    except (ValueError, KeyError, TypeError, ImportError) as problem:
        raise Unsupported(f"transformers {transformers.__version__} cannot build it: {first_line(problem)}") from None


def random_model(
    spec: ModelSpec, precision: Precision, dtype: torch.dtype, device: torch.device
) -> transformers.PreTrainedModel:
    model = on_meta(spec, dtype)
    block = (torch.randn(_BLOCK) * _RANDOM_STD).to(device=device, dtype=dtype)
    if precision.quantized:
        _quantize_at_random(model, precision, dtype, device, block)
    _materialize(model, device, block)
    # Norms, biases and the rotary tables take the values that the architecture starts from; matrices have theirs.
    with quiet():
        model.initialize_weights()
    model.tie_weights()
    return model


def _fill(matrix: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Random values at the speed of copying. Drawing each one takes longer than loading a model would."""
    flat = matrix.view(-1)
    for start in range(0, flat.numel(), block.numel()):
        part = flat[start : start + block.numel()]
        part.copy_(block[: part.numel()])
    return matrix


def _materialize(model: torch.nn.Module, device: torch.device, block: torch.Tensor) -> None:
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # keyed by identity: a tied matrix is made once
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is None or not param.is_meta:
                continue
            if param not in made:
                real = torch.empty_like(param, device=device)
                made[param] = torch.nn.Parameter(_fill(real, block) if real.dim() > 1 else real, requires_grad=False)
                made[param]._is_hf_initialized = real.dim() > 1
            module._parameters[name] = made[param]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=device)


def _quantize_at_random(
    model: transformers.PreTrainedModel,
    precision: Precision,
    dtype: torch.dtype,
    device: torch.device,
    block: torch.Tensor,
) -> None:
    """Every linear layer but the head becomes bitsandbytes' (as transformers does it), with random values.

    The values of one shape are quantised once and copied: each layer still holds storage of its own.
    """
    bnb = bitsandbytes_for(device)
    head = model.get_output_embeddings()
    done: dict[torch.Size, torch.nn.Parameter] = {}
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or layer is head:
            continue
        shape, bias = layer.weight.shape, layer.bias is not None
        if precision.quantized == "nf4":
            new = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias,
                dtype,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
        else:
            new = bnb.nn.Linear8bitLt(
                layer.in_features, layer.out_features, bias, has_fp16_weights=False, threshold=6.0, device="meta"
            )
        if shape not in done:
            full = _fill(torch.empty(shape, dtype=dtype, device=device), block)
            if precision.quantized == "nf4":
                weight = bnb.nn.Params4bit(full, requires_grad=False, compress_statistics=True, quant_type="nf4")
                done[shape] = weight.to(device)
            else:  # Int8Params quantises on its way from the CPU to a card only, so it is done here
                packed, scale, _ = bnb.functional.int8_vectorwise_quant(full.half())
                done[shape] = bnb.nn.Int8Params(
                    packed, requires_grad=False, has_fp16_weights=False, CB=packed, SCB=scale
                )
        new.weight = copy.deepcopy(done[shape])
        new.weight._is_hf_initialized = True
        if bias:
            new.bias = torch.nn.Parameter(torch.zeros(shape[0], dtype=dtype, device=device), requires_grad=False)
            new.bias._is_hf_initialized = True
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    # What peft asks a model before it puts adapters beside quantised layers.
    model.is_loaded_in_4bit = precision.quantized == "nf4"
    model.is_loaded_in_8bit = precision.quantized == "int8"
