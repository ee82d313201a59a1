"""Recipes by name: what is changed of models.yaml's, so that others' runs can be measured or predicted as they were."""

from dataclasses import replace

from harness.catalog import kernels as kernel_table
from harness.catalog.kernels import AUTO
from harness.errors import UserError, unknown
from harness.records.cell import ALL, DORA, NONE, OPTIMIZED, REFERENCE, Recipe

ARC24 = "arc24"
NAMES = (OPTIMIZED, REFERENCE, ARC24)


def named(name: str | None, known: Recipe, quantized: bool = False) -> Recipe:
    """`known` as it is (own), the field's plain step (one sequence at a time, checkpointing on as TRL has it), or what
    ironbar/arc24 ran in August 2024: LoRA r32 alpha 64 dropout 0.1 with DoRA on q, k, v, o, logits of every token,
    layers on two cards of which one works at a time, and under int4 what PEFT's preparation for
    k-bit training does (16-bit parameters widened, checkpointing). Raises UserError for any other name.
    """
    if name not in (None, *NAMES):
        raise unknown("recipe", name, NAMES)
    if name == REFERENCE:
        return replace(known, implementation=REFERENCE, micro_batch=1, gradient_checkpointing=ALL)
    if name == ARC24:
        return replace(
            known,
            lora_r=32,
            lora_alpha=64,
            lora_dropout=0.1,
            lora_targets="attention",
            sequences_per_step=16,
            micro_batch=1,
            gradient_checkpointing=ALL if quantized else NONE,
            implementation=REFERENCE,
            method=DORA,
            prepared_for_kbit=True,
            layer_split=2,
        )
    return replace(known, implementation=name or known.implementation)


def _recipe(name: str | None, known: Recipe) -> Recipe:
    """The named recipe, if it can be measured: arc24's split over two cards can only be predicted."""
    if name not in (None, OPTIMIZED, REFERENCE):
        raise unknown("recipe", name, (OPTIMIZED, REFERENCE))
    return named(name, known)


def with_kernels(text: str, recipe: Recipe) -> Recipe:
    """`recipe` with the kernels that `text` names. Raises UserError for what is none, or has none to choose."""
    chosen = kernel_table.asked(text)
    if chosen != AUTO and recipe.implementation == REFERENCE:
        raise UserError("--kernels chooses for this program's own step; leave it out, or --recipe reference")
    return replace(recipe, kernels=chosen)


def shared_by(gpus: int, recipe: Recipe) -> Recipe:
    """`recipe` with its steps divided among so many cards."""
    if gpus < 1:
        raise UserError(f"--gpus must be 1 or more, not {gpus}")
    if recipe.sequences_per_step % (gpus * recipe.micro_batch):
        each = f"{recipe.sequences_per_step} sequences in micro-batches of {recipe.micro_batch}"
        raise UserError(f"--gpus {gpus}: a step's {each} cannot be shared equally by {gpus} cards")
    return replace(recipe, data_parallel=gpus)
