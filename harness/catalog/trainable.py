"""What cannot be trained in a precision whatever the device holds, and why: a model that is beyond fp16's range."""

from harness.records.cell import ModelSpec

BF16 = "bf16"  # the value of `needs_range` in models.yaml
# Types of models whose activations exceed fp16's largest number. Gemma 3: "gradients and activations become infinity"
# on cards that train in fp16 (unsloth, "Fine-tune Gemma 3", 2025; of Gemma 3n its documentation says the same).
_NEED_RANGE = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text")


def needs_range(spec: ModelSpec) -> bool:
    """Whether the model's activations need bf16's range: by models.yaml, or by its type wherever it comes from."""
    return spec.needs_range == BF16 or spec.architecture.get("model_type") in _NEED_RANGE


def refusal(spec: ModelSpec, compute_dtype: str) -> str:
    """Why `spec` cannot be trained in `compute_dtype`, as a sentence without its full stop; "" where it can.

    Random weights do not show it: their activations stay small.
    """
    if compute_dtype == "fp16" and needs_range(spec):
        return (
            "unstable with real weights: its activations exceed 65504, fp16's largest number, and become infinite "
            "where fp16 computes them; choose --precisions bf16 or fp32"
        )
    return ""
