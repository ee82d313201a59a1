"""Weights of a GGUF file, dequantised: a model in fp32, bf16 or fp16, or quantised anew as the precision says.

transformers reads the file with the package gguf; the model's shape is what harness.catalog.gguf_model made of its
header, by which every tensor of the file is one of the model's.
"""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from harness.catalog import gguf_model
from harness.catalog.precisions import Precision
from harness.errors import Unsupported, UserError, first_line
from harness.records.cell import ModelSpec
from harness.train.compat import bitsandbytes_for, quiet
from harness.train.quantize import quantized_weight, replace_linear_layers
from harness.train.random_init import config_of


def source(file: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` is given for the GGUF `file`: its folder, and which file of it."""
    path = Path(file)
    return str(path.parent), {"gguf_file": path.name}


def must_be_as_said(file: str, tokenizer: Any) -> None:
    """Raises Unsupported where transformers made another tokenizer than the file describes, as its version 5.0 does."""
    end = gguf_model.read(Path(file)).config["eos_token_id"]
    if tokenizer.eos_token_id != end:
        raise Unsupported(
            f"transformers {transformers.__version__} reads another end-of-text token from {file} than the file's; "
            "install a newer one"
        )


def load(file: str, precision: Precision, dtype: torch.dtype, device: torch.device) -> transformers.PreTrainedModel:
    """The model in the GGUF `file` on `device`, in `dtype`; where `precision` quantises, layer by layer from there.

    The whole model is held in `dtype` before it is quantised, on the CPU. Raises Unsupported where the file does not
    load, or not whole.
    """
    if precision.quantization:
        bitsandbytes_for(device)  # raises where it cannot use the device
    folder, which = source(file)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, **which}
    # Versions before 5.23 dequantise always.
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        config = config_of(ModelSpec("", gguf_model.read(Path(file)).config, 0))
        with quiet(), redirect_stderr(StringIO()):  # its progress bar heeds nothing
            both: Any = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, output_loading_info=True, **options
            )
    # Of a file that is odd inside, gguf and transformers raise whatever they like.
    except (UserError, Exception) as problem:
        raise Unsupported(f"weights at {file} do not load: {first_line(problem)}") from None
    model, loading = both
    if wrong := [*loading["missing_keys"], *loading["unexpected_keys"], *loading["mismatched_keys"]]:
        raise Unsupported(f"weights at {file} are not read whole: {len(wrong)} tensors, as {wrong[0]}")
    # They are plain tensors now; PEFT and the checks of other modules must not take them for quantised ones.
    for part in (model, model.config):
        for name in ("hf_quantizer", "quantization_config", "quantization_method", "is_quantized"):
            if name in vars(part):
                delattr(part, name)
    if quantization := precision.quantization:
        replace_linear_layers(
            model, quantization, device, lambda layer: quantized_weight(layer.weight.detach().to(device), quantization)
        )
    return model.to(device)
