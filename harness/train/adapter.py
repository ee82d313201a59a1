"""The trainable adapter beside a frozen model."""

from typing import Any

import torch
import transformers

from harness.errors import Unsupported
from harness.records.cell import DORA, Recipe
from harness.train.compat import import_peft, quiet

peft = import_peft()
# Names that models give to the projections of queries, keys, values and attention's output.
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "dense", "out_proj", "c_attn")


def add_adapter(model: transformers.PreTrainedModel, recipe: Recipe) -> Any:
    """`model` with LoRA on the recipe's matrices, A and B in fp32 whatever the base is."""
    targets: str | list[str] = recipe.lora_targets
    if targets == "attention":
        # bitsandbytes' layers are subclasses of Linear.
        inside = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        targets = [name for name in _ATTENTION if name in inside]
        if not targets:
            raise Unsupported("no attention projection of a known name to adapt; use lora_targets: all-linear")
    # PEFT keeps A and B in fp32 by default (autocast_adapter_dtype).
    config = peft.LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        use_dora=recipe.method == DORA,
        task_type="CAUSAL_LM",
    )
    with quiet():
        return peft.get_peft_model(model, config)
