"""Recipes by name: what is changed of models.yaml's, so that others' runs can be measured or predicted as they were."""

from dataclasses import replace

from harness.errors import unknown
from harness.records.cell import DORA, OWN, REFERENCE, Recipe

ARC24 = "arc24"
NAMES = (OWN, REFERENCE, ARC24)


def named(name: str | None, known: Recipe, quantized: bool = False) -> Recipe:
    """`known` as it is (own), the field's plain step (one sequence at a time, checkpointing on as TRL has it), or what
    ironbar/arc24 ran in August 2024: LoRA r32 alpha 64 dropout 0.1 with DoRA on q, k, v, o, logits of every token,
    layers on two cards of which one works at a time, and under int4 what PEFT's preparation for
    k-bit training does (16-bit parameters widened, checkpointing). Raises UserError for any other name.
    """
    if name not in (None, *NAMES):
        raise unknown("recipe", name, NAMES)
    if name == REFERENCE:
        return replace(known, implementation=REFERENCE, micro_batch=1, gradient_checkpointing=True)
    if name == ARC24:
        return replace(
            known,
            lora_r=32,
            lora_alpha=64,
            lora_dropout=0.1,
            lora_targets="attention",
            sequences_per_step=16,
            micro_batch=1,
            gradient_checkpointing=quantized,
            implementation=REFERENCE,
            method=DORA,
            prepared_for_kbit=True,
            layer_split=2,
        )
    return replace(known, implementation=name or known.implementation)
