"""What cannot be trained in a precision, whatever the device: a model beyond fp16's range, a quantised checkpoint."""

from typing import Any

from harness.catalog.precisions import PRECISIONS
from harness.records.cell import ModelSpec
from harness.text import quoted

BF16 = "bf16"  # the value of `needs_range` in models.yaml
# Types of models whose activations exceed fp16's largest number. Gemma 3: "gradients and activations become infinity"
# on cards that train in fp16 (unsloth, "Fine-tune Gemma 3", 2025; of Gemma 3n its documentation says the same).
_NEED_RANGE = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text")


def needs_range(spec: ModelSpec) -> bool:
    """Whether the model's activations need bf16's range: by models.yaml, or by its type wherever it comes from."""
    return spec.needs_range == BF16 or spec.architecture.get("model_type") in _NEED_RANGE


def overflow(spec: ModelSpec, compute_dtype: str) -> str:
    """Why `spec` cannot be trained in `compute_dtype`, as a sentence without its full stop; "" where it can.

    Random weights do not show it: their activations stay small.
    """
    if compute_dtype == "fp16" and needs_range(spec):
        return (
            "unstable with real weights: its activations exceed 65504, fp16's largest number, and become infinite "
            "where fp16 computes them; choose --precisions bf16 or fp32"
        )
    return ""


def refusal(spec: ModelSpec, precision: str, compute_dtype: str) -> str:
    """Why `spec` cannot be trained in `precision`, computing in `compute_dtype`; "" where it can."""
    if spec.quantized and precision != spec.quantized:
        return f"{already_quantized(spec)}, and in {precision} it would be another model; {_instead(spec)}"
    return overflow(spec, compute_dtype)


def already_quantized(spec: ModelSpec) -> str:
    return f"its weights are quantised already ({spec.quantized})"


def not_loaded(spec: ModelSpec) -> str:
    """Why real weights of a quantised checkpoint are not trained: the adapter's base is quantised here, from whole
    ones."""
    return f"{already_quantized(spec)}, and such are not loaded; name the unquantised model"


def _instead(spec: ModelSpec) -> str:
    choose = f"choose --precisions {spec.quantized}, or " if spec.quantized in PRECISIONS else ""
    return f"{choose}name the unquantised model, or a folder whose config.json has no quantization_config"


def quantization_of(config: dict[str, Any]) -> str | None:
    """What a config.json says that its weights are quantised as: the precision that is the same here, else the method's
    name; None where they are not."""
    settings = config.get("quantization_config")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        return "unknown"
    # bitsandbytes' two kinds are precisions here; older configs name the method by its flags alone.
    method = settings.get("quant_method")
    if method in ("bitsandbytes", None):
        if settings.get("load_in_8bit"):
            return "int8"
        if settings.get("load_in_4bit"):
            kind = settings.get("bnb_4bit_quant_type", "fp4")
            return "int4" if kind == "nf4" else f"bitsandbytes {quoted(kind)}"
    return quoted(method).strip("'") if method else "unknown"
