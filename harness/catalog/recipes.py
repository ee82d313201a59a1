"""The one place that assembles a recipe: models.yaml's, changed by a recipe's name and by single options.

Named recipes exist so that others' runs can be measured or predicted as they were made.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from harness import limits
from harness.catalog import kernels as kernel_table
from harness.catalog.kernels import AUTO
from harness.catalog.optimizers import FUSED, OPTIMIZERS
from harness.catalog.precisions import DTYPES
from harness.errors import UserError, unknown
from harness.records.cell import ALL, DORA, FULL, LORA, NONE, OPTIMIZED, RECOMPUTE, REFERENCE, TARGETS, Recipe

ARC24 = "arc24"
NAMES = (OPTIMIZED, REFERENCE, ARC24)
_ALIASES = {"optimized": OPTIMIZED}  # rows are stored under the word that the first ones had
METHODS = (LORA, DORA, FULL)
DATA, LAYERS = "data", "layers"  # what several cards divide: the sequences of a step, or the layers of the model
SPLITS = (DATA, LAYERS)
# What tells names of modules from a mistyped word: an underscore, a digit or a capital; and names without any.
_MODULES = re.compile(r"[\w.]*[_A-Z0-9][\w.]*|dense|query|key|value|qkv|receptance|output")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Changes to models.yaml's recipe; the defaults change nothing.

    `name` is one of NAMES, or "optimized" for the first of them. `kernels` is written as harness.catalog.kernels says.
    Setting `sequences_per_step` sets the micro-batch to 1, if `micro_batch` says nothing else.
    """

    name: str | None = None
    gpus: int = 1
    split: str = DATA  # one of SPLITS
    kernels: str = AUTO
    method: str | None = None  # one of METHODS
    micro_batch: int | None = None
    recompute: str | None = None  # one of harness.records.cell.RECOMPUTE
    trim_vocab: bool = False
    lora_targets: str | None = None  # one of harness.records.cell.TARGETS, or names of modules: "q_proj v_proj"
    learning_rate: float | None = None
    sequences_per_step: int | None = None
    lora_r: int | None = None
    adapter_dtype: str | None = None  # one of harness.catalog.precisions.DTYPES
    optimizer: str | None = None  # one of harness.catalog.optimizers


def resolve(base: Recipe, options: RecipeOptions, quantized: bool = False) -> Recipe:
    """`base` with `options` applied. Raises UserError for the first value that cannot be.

    `quantized` says whether the base weights are: arc24 trains those with recomputation, 16-bit ones without.
    """
    recipe = _named(_ALIASES.get(options.name or "", options.name), base, quantized)
    for what, value, allowed in (
        ("method", options.method, METHODS),
        ("split", options.split, SPLITS),
        ("checkpointing", options.recompute, RECOMPUTE),
        ("adapter dtype", options.adapter_dtype, DTYPES),
        ("optimizer", options.optimizer, OPTIMIZERS),
    ):
        if value is not None and value not in allowed:
            raise unknown(what, value, allowed)
    targets = None if options.lora_targets is None else _lora_targets(options.lora_targets)
    for option, count, kind in (
        ("--gpus", options.gpus, limits.Cards),
        ("--micro-batch", options.micro_batch, limits.Sequences),
        ("--sequences-per-step", options.sequences_per_step, limits.Sequences),
        ("--lora-r", options.lora_r, limits.Rank),
    ):
        limits.within(option, count, kind)

    changes: dict[str, Any] = {
        "method": options.method,
        # another step may not be a multiple of the micro-batch that the file gives
        "micro_batch": options.micro_batch or (1 if options.sequences_per_step else None),
        "gradient_checkpointing": options.recompute,
        "lora_targets": targets,
        "learning_rate": limits.within("--learning-rate", options.learning_rate, limits.LearningRate),
        "sequences_per_step": options.sequences_per_step,
        "lora_r": options.lora_r,
        "adapter_dtype": options.adapter_dtype,
        "optimizer": options.optimizer,
        "trim_vocab": options.trim_vocab,
    }
    recipe = replace(recipe, **{field: value for field, value in changes.items() if value is not None})

    # A recipe with its own split over cards keeps it, whatever the number of cards.
    if recipe.layer_split == 1 and options.split == DATA:
        recipe = _shared_by(options.gpus, recipe)
    elif recipe.layer_split == 1:
        recipe = replace(_shared_by(1, recipe), layer_split=options.gpus)
    return _with_kernels(options.kernels, recipe)


def measurable(options: RecipeOptions) -> RecipeOptions:
    """`options`, if a step of theirs can be measured here. Raises UserError for arc24: its split can be predicted only.

    Raises it for another optimiser, and for an unknown recipe too, so that arc24 is not among the names that it offers.
    """
    if _ALIASES.get(options.name or "", options.name) not in (None, OPTIMIZED, REFERENCE):
        raise unknown("recipe", options.name or "", (OPTIMIZED, REFERENCE))
    if options.optimizer not in (None, FUSED):
        raise UserError(f"--optimizer {options.optimizer} can be predicted only; what is measured is {FUSED}")
    return options


def _named(name: str | None, base: Recipe, quantized: bool = False) -> Recipe:
    """`base` as the recipe `name` has it; None changes nothing. Raises UserError for a name that is not in NAMES.

    own: this program's step. reference: the step of transformers and PEFT under autocast, one sequence at a time and
    with gradient checkpointing, TRL's default, and over a quantised base with PEFT's prepare_model_for_kbit_training.
    arc24: what ironbar/arc24 ran in August 2024. That is DoRA of rank 32, alpha 64 and dropout 0.1 on q, k, v, o, with
    logits of every token and the layers on two cards, one at work at a time, without autocast. Over a quantised base
    PEFT's preparation widens the 16-bit parameters and turns checkpointing on.
    """
    if name is not None and name not in NAMES:
        raise unknown("recipe", name, NAMES)
    if name == REFERENCE:
        return replace(
            base, implementation=REFERENCE, micro_batch=1, gradient_checkpointing=ALL, prepared_for_kbit=True
        )
    if name == ARC24:
        return replace(
            base,
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
            autocast=False,
            layer_split=2,
        )
    return replace(base, implementation=name or base.implementation)


def _lora_targets(text: str) -> str:
    """One of TARGETS, or the names of modules in `text`, each once. Raises UserError for a word that is neither."""
    words = list(dict.fromkeys(text.replace(",", " ").split()))
    if len(words) == 1 and words[0] in TARGETS:
        return words[0]
    for word in words or [text]:
        if not _MODULES.fullmatch(word):
            raise unknown("LoRA target", word, TARGETS)
    return " ".join(words)


def _with_kernels(text: str, recipe: Recipe) -> Recipe:
    """`recipe` with the kernels that `text` names. Raises UserError for an unknown one, and over the reference."""
    chosen = kernel_table.normalize(text)
    if chosen != AUTO and recipe.implementation == REFERENCE:
        raise UserError("--kernels chooses for this program's own step; leave it out, or --recipe reference")
    return replace(recipe, kernels=chosen)


def _shared_by(gpus: int, recipe: Recipe) -> Recipe:
    """`recipe` with the sequences of a step divided among `gpus` cards."""
    if gpus < 1:
        raise UserError(f"--gpus must be 1 or more, not {gpus}")
    if recipe.sequences_per_step % (gpus * recipe.micro_batch):
        step = f"{recipe.sequences_per_step} sequences in micro-batches of {recipe.micro_batch}"
        remedy = "give another --sequences-per-step, --micro-batch or number of cards"
        raise UserError(f"a step's {step} cannot be shared equally by {gpus} cards; {remedy}")
    return replace(recipe, data_parallel=gpus)
