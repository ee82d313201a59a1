"""What measuring accuracy is asked, checked before anything is loaded: the model with its weights, and its tasks."""

from dataclasses import dataclass, replace

from harness.arc.arms import Arm, choose
from harness.arc.encode import ENCODINGS
from harness.arc.sources import load as load_tasks
from harness.arc.task import LARGEST, Solutions, Task, subset, within
from harness.catalog import models as catalog
from harness.catalog import precisions as precision_table
from harness.catalog import weights as weights_of
from harness.catalog.kernels import AUTO
from harness.catalog.recipes import shared_by, with_kernels
from harness.errors import UserError, positive, unknown
from harness.records.arm import SCOPES, SHARED, SHORTEN, TOO_LONG
from harness.records.cell import TARGETS, ModelSpec, Recipe

NO_WEIGHTS = (
    "no weights: accuracy not measured; give them with --weights PATH (a folder with config.json, safetensors and "
    "tokenizer), or download with --weights hub"
)


@dataclass(frozen=True)
class How:
    """How arms are run; None is what models.yaml says."""

    arms: str = "all"
    source: str | None = None
    solutions: str | None = None
    grid_limit: int | None = None
    tasks: int | None = None
    steps: int | None = None
    context: int | None = None
    views: int | None = None
    encoding: str = "rows"
    precision: str | None = None
    learning_rate: float | None = None
    scope: str = SHARED
    too_long: str = SHORTEN
    curve: bool = False
    seed: int = 0
    lora_targets: str | None = None
    sequences_per_step: int | None = None
    gpus: int = 1
    trim_vocab: bool = False
    kernels: str = AUTO
    fit: bool = False


@dataclass(frozen=True)
class Exam:
    """One model's tasks and arms, every value checked. `source` says the set and how it was narrowed."""

    model: ModelSpec
    weights: str
    recipe: Recipe
    how: How
    source: str
    puzzles: list[Task]
    solutions: Solutions
    arms: list[Arm]
    steps: int
    context: int
    views: int


def of(spec: ModelSpec, weights: str, how: How, known: catalog.Catalog, alone: bool = True) -> Exam:
    """The exam of `spec`; where several models are compared (not `alone`) all get the file's own tasks.

    Raises UserError for the first value that cannot be; a model without weights is one.
    """
    own = known.ttft.of(spec)
    said = own if alone else known.ttft.override(learning_rate=own.learning_rate)
    arms = choose(how.arms)
    if how.precision:
        precision_table.find(how.precision)
    for name, value, allowed in (
        ("encoding", how.encoding, ENCODINGS),
        ("scope", how.scope, SCOPES),
        ("way with long prompts", how.too_long, TOO_LONG),
    ):
        if value not in allowed:
            raise unknown(name, value, allowed)
    if weights == weights_of.RANDOM:
        raise UserError(f"{spec.name}: {NO_WEIGHTS}")
    steps = _whole("--steps", how.steps, said.steps)
    context = _whole("--context", how.context, min(said.context, spec.max_context), 64)
    views = _whole("--views", how.views, said.views)
    limit = _whole("--grid-limit", how.grid_limit, said.grid_limit)
    if context > spec.max_context:
        raise UserError(f"--context {context} is beyond the window of {spec.name}, {spec.max_context} tokens")
    rate = positive("--learning-rate", how.learning_rate) or said.learning_rate
    recipe = known.recipe if rate is None else replace(known.recipe, learning_rate=rate)
    if how.lora_targets:
        if how.lora_targets not in TARGETS:
            raise unknown("LoRA target", how.lora_targets, TARGETS)
        recipe = replace(recipe, lora_targets=how.lora_targets)
    if how.sequences_per_step is not None:
        each = _whole("--sequences-per-step", how.sequences_per_step, 0)
        recipe = replace(recipe, sequences_per_step=each, micro_batch=1)
    recipe = with_kernels(how.kernels, replace(shared_by(how.gpus, recipe), trim_vocab=how.trim_vocab))
    spec = catalog.trimmed(spec) if how.trim_vocab else spec
    source = how.source or said.set
    puzzles, solutions = _tasks(source, how.solutions, limit)
    chosen = subset(puzzles, _whole("--tasks", how.tasks, said.tasks), how.seed)
    named = source if limit >= LARGEST else f"{source}, grids to {limit}"
    return Exam(spec, weights, recipe, how, named, chosen, solutions, arms, steps, context, views)


def _tasks(source: str, solutions: str | None, limit: int) -> tuple[list[Task], Solutions]:
    puzzles, answers = load_tasks(source, solutions)
    solvable = [puzzle for puzzle in puzzles if puzzle.id in answers]
    if not solvable:
        raise UserError(f"{source}: no task has its solution; name Kaggle's solutions file with --solutions")
    small = within(solvable, limit)
    if not small:
        raise UserError(f"{source}: no task has all its grids within {limit} a side; ask for a larger --grid-limit")
    return small, answers


def _whole(option: str, value: int | None, default: int, least: int = 1) -> int:
    if value is None:
        return default
    if value < least:
        raise UserError(f"{option} must be {least} or more, not {value}")
    return value
