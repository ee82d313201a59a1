"""How a logged run made its steps: by its log, by what the user says of it, and where neither tells, by assumption."""

from dataclasses import dataclass, field, replace

from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import Accelerator
from harness.catalog.models import Catalog
from harness.catalog.precisions import Precision
from harness.catalog.recipes import RecipeOptions, resolve
from harness.errors import UserError
from harness.logs.logged import LoggedRun
from harness.predict.prediction import compute_of
from harness.records.cell import ALL, FULL, OPTIMIZED, REFERENCE, ModelSpec, Recipe
from harness.text import quoted


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user says of the logs; it counts more than what they tell. `card` may be several: "2xt4"."""

    spec: ModelSpec | None = None
    card: Accelerator | None = None
    context: int | None = None
    precision: Precision | None = None
    steps: int | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)


def model_of(run: LoggedRun, catalog: Catalog) -> ModelSpec:
    if not run.model:
        raise UserError("it names no model; give --model")
    names = {run.model, run.model.rpartition("/")[2].lower()}
    # Unsloth's copies of a model are called after it.
    for ending in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        names |= {name.removesuffix(ending) for name in names}
    names |= {name.removesuffix("-instruct").removesuffix("-it").removeprefix("meta-") for name in names}
    for spec in catalog.models.values():
        hub = (spec.hub_id or "").rpartition("/")[2].lower()
        if names & {spec.name, spec.hub_id, hub, *spec.aliases}:
            return spec
    raise UserError(f"its model {quoted(run.model)} is not in models.yaml; give --model, a folder or a hub id")


def card_of(run: LoggedRun, stated: Accelerator | None) -> Accelerator:
    """The cards of a step. Raises UserError where the log contradicts the user on their number."""
    if stated:
        if run.cards and run.cards != stated.count:
            right = f"{run.cards}x{stated.name}" if run.cards > 1 else stated.name
            raise UserError(
                f"--gpu names {stated.count} x {stated.name}, and its batch sizes tell of {run.cards}; give {right}"
            )
        return stated
    if not run.card:
        raise UserError("it names no card; give --gpu")
    try:
        card = accelerators.find(run.card)
    except UserError as problem:
        raise UserError(f"{problem} (or the right name with --gpu)") from None
    if not run.cards and (shown := run.cards_shown or 1) > 1:
        raise UserError(
            f"it shows {shown} cards, and not how many share a step; give --gpu, as in {card.name} or "
            f"{shown}x{card.name}"
        )
    return replace(card, count=run.cards or 1)


def precision_of(run: LoggedRun, card: Accelerator) -> Precision:
    if not run.precision:
        raise UserError("it does not tell the precision of the weights; give --precision")
    precision = precisions.find(run.precision)
    card.rate(compute_of(precision, card))
    return precision


def recipe_of(run: LoggedRun, stated: Stated, base: Recipe, cards: int, precision: Precision) -> Recipe:
    """The step as that trainer makes it: Unsloth's recomputes as TRL's does, with fused kernels, as ours has."""
    options, theirs = stated.recipe, run.tool == "Unsloth"
    sequences = options.sequences_per_step or run.sequences_per_step
    if not sequences:
        raise UserError("it does not tell how many sequences a step has; give --sequences-per-step")
    micro_batch = options.micro_batch or run.micro_batch or 1
    if sequences % (cards * micro_batch):
        step = f"a step of {sequences} sequences cannot be made of micro-batches of {micro_batch} on {cards} cards"
        shared = cards > 1 and micro_batch % cards == 0 and sequences % micro_batch == 0
        hint = "; as one process would on all cards (torch.nn.DataParallel), which is not predicted" if shared else ""
        raise UserError(f"{step}; give --micro-batch, --sequences-per-step or --gpu{hint}")
    recipe = resolve(
        base,
        RecipeOptions(
            name=options.name or (OPTIMIZED if theirs else REFERENCE),
            gpus=cards,
            method=options.method or run.method,
            lora_r=options.lora_r or run.lora_r,
            lora_targets=options.lora_targets or run.lora_targets or ("all-linear" if theirs else None),
            sequences_per_step=sequences,
            micro_batch=micro_batch,
            recompute=options.recompute or run.recompute or ALL,
        ),
        precision.quantized,
    )
    # Trainers take a loss of every token unless told otherwise.
    return replace(recipe, answer_share=1.0)


def assumptions(run: LoggedRun, stated: Stated, recipe: Recipe) -> tuple[str, ...]:
    """What neither the log nor the user tells of the step, as one sentence: options name other ones."""
    options, assumed = stated.recipe, []
    if not (options.method or run.method):
        assumed.append(f"--method {recipe.method}")
    if recipe.method != FULL and not (options.lora_r or run.lora_r):
        assumed.append(f"--lora-r {recipe.lora_r}")
    if recipe.method != FULL and not (options.lora_targets or run.lora_targets):
        assumed.append(f"--lora-targets {recipe.lora_targets}")
    if not (options.micro_batch or run.micro_batch):
        assumed.append(f"--micro-batch {recipe.micro_batch}")
    if not (options.recompute or run.recompute):
        assumed.append(f"--checkpointing {recipe.gradient_checkpointing}")
    if not (stated.card or run.cards):
        assumed.append("one card (--gpu)")
    elif not run.cards and recipe.data_parallel > 1:
        assumed.append("a process per card (torch.nn.DataParallel is slower, and not predicted)")
    return (f"assumed, for it does not tell: {', '.join(assumed)}",) if assumed else ()
