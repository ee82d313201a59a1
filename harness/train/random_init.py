"""The real architecture of a model, without storage or with random weights."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from harness.catalog.model_folder import WINDOWS
from harness.catalog.precisions import Precision, Quantization
from harness.errors import Unsupported, first_line
from harness.records.cell import ModelSpec
from harness.train.compat import quiet
from harness.train.quantize import mark_initialized, quantized_weight, replace_linear_layers

_RANDOM_STD = 0.02
_UNSCALED = ("aya_vision", "cohere2_vision")  # their logits are not multiplied as those of their text part alone
_BLOCK = (1 << 20) + 7  # values drawn once and repeated; odd, so that the rows of a matrix differ


def config_of(spec: ModelSpec) -> transformers.PretrainedConfig:
    """The transformers config of `spec`, as transformers reads its config.json; that of the text part of a multimodal
    model. Raises Unsupported where transformers does not know the architecture."""
    # transformers writes an infinity as an object, which its own reader turns back.
    architecture = PreTrainedConfig._decode_special_floats(dict(spec.architecture))
    model_type = architecture.pop("model_type")
    if model_type == "mistral" and "layer_types" in architecture:
        model_type = "ministral"  # as AutoConfig.from_pretrained has it
    try:
        with quiet():
            config = AutoConfig.for_model(model_type, **architecture)
    except Exception as problem:  # every config class checks its fields in its own way
        raise Unsupported(f"transformers {transformers.__version__} cannot build it: {first_line(problem)}") from None
    return text_part(config) or config


def text_part(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig | None:
    """The config of the causal language model inside a multimodal model; None where `config` is to be used itself.

    Where AutoModelForCausalLM takes the text part by itself, or has a causal class for the whole, nothing is changed.
    """
    by_type, text = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, getattr(config, "text_config", None)
    whole = by_type.get(config.model_type, "")
    if not isinstance(text, PreTrainedConfig) or whole.endswith("ForCausalLM") or text.is_encoder_decoder:
        return None
    multimodal = whole or config.model_type in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    if not multimodal or text.model_type not in by_type:
        return None
    # Whether head and embedding are one matrix is the whole model's to say.
    text.tie_word_embeddings = config.tie_word_embeddings
    if config.model_type in _UNSCALED:
        text.logit_scale = 1.0
    return text


def window_of(path: str, emit: Callable[..., None]) -> int | None:
    """The longest context by transformers' own reading of the config.json at `path`, with its defaults; None where it
    says none either. A job (harness.workers.serve)."""
    try:
        config = config_of(ModelSpec("", json.loads(Path(path).read_text(encoding="utf-8")), 0))
        text = config.get_text_config(decoder=True)
    except Exception:  # whatever the file holds: then there is no answer
        return None
    sizes = [getattr(text, name, None) for name in WINDOWS]
    return next((tokens for tokens in sizes if type(tokens) is int and tokens > 0), None)


def on_meta(spec: ModelSpec, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """The architecture without storage: a second for any size. Raises Unsupported where it cannot be built."""
    config = config_of(spec)
    try:
        with torch.device("meta"), quiet():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except Exception as problem:  # the code of an architecture may fail in any way where its config is odd
        raise Unsupported(f"transformers {transformers.__version__} cannot build it: {first_line(problem)}") from None
    # A few old ones (XLNet) make their parameters on the CPU whatever is asked for.
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None and not param.is_meta:
                module._parameters[name] = torch.nn.Parameter(torch.empty_like(param, dtype=dtype, device="meta"))
    # transformers 5.0 does not tie what has no storage: the head would be counted, and held, beside the embeddings.
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(config.get_text_config(decoder=True), "tie_word_embeddings", False)
    if tied and type(head) is torch.nn.Linear and head.weight is not getattr(embeddings, "weight", None):
        with quiet():
            model.tie_weights()
    return model


def random_model(
    spec: ModelSpec, precision: Precision, dtype: torch.dtype, device: torch.device
) -> transformers.PreTrainedModel:
    """The architecture on `device` with random weights, quantised where `precision` says so.

    Raises Unsupported where it cannot be built.
    """
    # Built on meta first, so that the full-precision matrices are never held beside the quantised ones.
    model = on_meta(spec, dtype)
    block = (torch.randn(_BLOCK) * _RANDOM_STD).to(device=device, dtype=dtype)
    if precision.quantization:
        _quantize_at_random(model, precision.quantization, dtype, device, block)
    _materialize(model, device, block)
    # Norms, biases and rotary tables take the architecture's initial values; matrices keep theirs.
    with quiet():
        model.initialize_weights()
    _zero_what_is_left(model)
    model.tie_weights()
    return model


def _fill(matrix: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Random values at the speed of copying. Drawing every value takes longer than loading a model would."""
    flat = matrix.view(-1)
    for start in range(0, flat.numel(), block.numel()):
        part = flat[start : start + block.numel()]
        part.copy_(block[: part.numel()])
    return matrix


def _materialize(model: torch.nn.Module, device: torch.device, block: torch.Tensor) -> None:
    """Gives storage on `device` to what is still on meta: matrices random values, the rest none yet."""
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # keyed by identity: a tied matrix is made once
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is None or not param.is_meta:
                continue
            # A matrix gets random values now, a vector waits for initialize_weights.
            if param not in made:
                real = _unset(param, device)
                made[param] = torch.nn.Parameter(_fill(real, block) if real.dim() > 1 else real, requires_grad=False)
                if real.dim() > 1:
                    mark_initialized(made[param])
            module._parameters[name] = made[param]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = _unset(buffer, device)


def _unset(meta: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Storage for `meta` that shows whether it was initialised: small tensors of floats are not a number."""
    real = torch.empty_like(meta, device=device)
    return real.fill_(float("nan")) if real.is_floating_point() and real.dim() <= 1 else real


def _zero_what_is_left(model: torch.nn.Module) -> None:
    """Sets to zero what the architecture has no initial value for: parameters of an activation, for example."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and tensor.dim() <= 1 and not tensor.is_meta and bool(tensor.isnan().all()):
            tensor.data.zero_()


def _quantize_at_random(
    model: transformers.PreTrainedModel,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
    block: torch.Tensor,
) -> None:
    """Random values of every shape are quantised once and copied: each layer still holds storage of its own."""
    by_shape: dict[torch.Size, torch.nn.Parameter] = {}

    def weight_of(layer: torch.nn.Linear) -> torch.nn.Parameter:
        shape = layer.weight.shape
        if shape not in by_shape:
            values = _fill(torch.empty(shape, dtype=dtype, device=device), block)
            by_shape[shape] = quantized_weight(values, quantization)
        return copy.deepcopy(by_shape[shape])

    replace_linear_layers(model, quantization, device, weight_of)
