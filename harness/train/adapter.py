"""The trainable adapter beside a frozen model."""

import re
from typing import Any

import torch
import transformers
from transformers.pytorch_utils import Conv1D

from harness.errors import Unsupported
from harness.records.cell import DORA, Recipe
from harness.train.compat import import_peft, quiet

peft = import_peft()
# Names that models give to the projections of queries, keys, values and attention's output; fused ones, and the
# low-rank ones of multi-head latent attention, among them.
_ATTENTION = (
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "dense", "out_proj", "c_attn", "query_key_value", "Wqkv",
    "c_proj", "query", "key", "value", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "q_attn",
    "in_proj_qkv",
)  # fmt: skip
_INSIDE_ATTENTION = re.compile(r"att(n|ention)", re.IGNORECASE)
_OUTPUTS = {"o_proj", "out_proj", "dense", "c_proj"}


def add_adapter(model: transformers.PreTrainedModel, recipe: Recipe) -> Any:
    """`model` with LoRA on the recipe's matrices, A and B in fp32 whatever the base is.

    What PEFT cannot adapt is left out: the convolution and the output of Mamba's blocks, and linear layers that give
    something else than a product, as some routers are. Raises Unsupported where nothing is left.
    """
    targets: str | list[str] = recipe.lora_targets
    if targets == "attention":
        targets = _attention_projections(model)
    elif targets == "all-linear" and any(map(_is_odd, model.modules())):
        targets = [name for name, module in _linear_layers(model) if module is not model.get_output_embeddings()]
    # PEFT keeps A and B in fp32 by default (autocast_adapter_dtype).
    settings: dict[str, Any] = {
        "r": recipe.lora_r,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "use_dora": recipe.method == DORA,
        "task_type": "CAUSAL_LM",
    }
    with quiet():
        try:
            return peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, **settings))
        except ValueError as problem:
            if "incompatible with Mamba" not in str(problem):
                raise
        left = [name for name, module in _linear_layers(model) if module is not model.get_output_embeddings()]
        if targets != "all-linear":
            left = [name for name in left if any(name == t or name.endswith(f".{t}") for t in targets)]
        left = [name for name in left if name.rpartition(".")[2] not in ("out_proj", "conv1d")]
        if not left:
            raise Unsupported("PEFT adapts no layer that is asked for; use lora_targets: all-linear")
        return peft.get_peft_model(model, peft.LoraConfig(target_modules=left, **settings))


def adapted_names(model: Any) -> str:
    """The names of the modules that have an adapter, without where they stand: "q_proj k_proj v_proj o_proj"."""
    names = (name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A"))
    return " ".join(dict.fromkeys(names))


def warning(model: Any, recipe: Recipe) -> str:
    """A sentence where "attention" adapts less than its name says; empty where all is well."""
    names = set(adapted_names(model).split())
    if recipe.lora_targets == "attention" and names and names <= _OUTPUTS:
        return f"of attention {' '.join(sorted(names))} alone is adapted here; all-linear adapts more (--lora-targets)"
    return ""


def _attention_projections(model: Any) -> list[str]:
    """Names of attention's projections; whole ones where a name stands outside attention too."""
    known = [(name, name.rpartition(".")[2]) for name, _ in _linear_layers(model)]
    known = [(name, leaf) for name, leaf in known if leaf in _ATTENTION]
    inside = [(name, leaf) for name, leaf in known if _INSIDE_ATTENTION.search(name.rpartition(".")[0])] or known
    if not inside:
        raise Unsupported("no attention projection of a known name to adapt; use lora_targets: all-linear")
    leaves = {leaf for _, leaf in inside}
    if sum(leaf in leaves for _, leaf in known) > len(inside):
        return [name for name, _ in inside]
    return [leaf for leaf in _ATTENTION if leaf in leaves]


def _linear_layers(model: Any) -> list[tuple[str, torch.nn.Module]]:
    """Linear layers (bitsandbytes' are subclasses) and GPT-2's Conv1D, but those that give something else."""
    kinds = (torch.nn.Linear, Conv1D)
    return [(name, m) for name, m in model.named_modules() if isinstance(m, kinds) and not _is_odd(m)]


def _is_odd(module: torch.nn.Module) -> bool:
    """Whether a linear layer has a forward of its own that does not give [..., out] for [..., in]."""
    kind = type(module)
    if not isinstance(module, torch.nn.Linear) or kind.forward is torch.nn.Linear.forward:
        return False
    if kind.__module__.startswith("bitsandbytes"):
        return False
    try:
        with torch.no_grad():
            out = module(module.weight.new_zeros(1, 1, module.in_features))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return True
    return not isinstance(out, torch.Tensor) or out.shape != (1, 1, module.out_features)
