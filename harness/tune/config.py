"""The request of a fine-tune, complete and checked before anything is loaded: a model with weights, tasks, arms."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import limits
from harness.arc import arms as arm_table
from harness.arc.arms import Arm
from harness.arc.encode import ENCODINGS
from harness.arc.sources import load
from harness.arc.task import LARGEST, Solutions, Task, subset, within
from harness.catalog import precisions, trainable, weights
from harness.catalog.models import Catalog, TuneDefaults, trimmed
from harness.errors import UserError, unknown
from harness.hardware.info import DeviceReport
from harness.records.arm import DECODERS, GREEDY, SCOPES, SELECTIONS, SHARED, SHORTEN, TOO_LONG, VOTE, TuneSpec
from harness.records.cell import ModelSpec, Recipe

NO_WEIGHTS = (
    "no weights: accuracy not measured; give them with --weights PATH (a folder with config.json, safetensors and "
    "tokenizer), or download with --weights hub"
)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """One model with its tasks and arms.

    `dataset` names the set and its grid limit, if any. By default `precision` is "native", the device's own, and
    `results` a folder named after the device.
    """

    model: ModelSpec
    weights: str
    recipe: Recipe
    dataset: str
    tasks: Sequence[Task]
    solutions: Solutions
    arms: Sequence[Arm]
    steps: int
    context: int
    views: int
    precision: str | None = None
    encoding: str = "rows"
    scope: str = SHARED
    too_long: str = SHORTEN
    decode: str = GREEDY
    select: str = VOTE
    curve: bool = False  # evaluate during training too, after half of the steps, a quarter, ...
    autotune: bool = False  # find the fastest packing and recompute setting
    seed: int = 0
    device: str = "auto"
    results: Path | None = None
    fresh: bool = False

    @classmethod
    def of(
        cls, model: ModelSpec, weights: str, settings: TuneDefaults, *, solutions_file: str | None = None, **more: Any
    ) -> "TuneConfig":
        """The config from `settings` (models.yaml's, overridden by flags) and `more`, further fields of this class.

        `more` names arms as text: "all" or "baseline, n-1"; with `answered` False tasks without solutions count too.
        Raises UserError for the first value that is not allowed, and for a model without weights.
        """
        # Cheap checks come before reading the tasks.
        _check(model, weights, settings, more)
        arms = arm_table.choose(more.pop("arms", "all"))
        seed = more.get("seed", 0)
        answered = more.pop("answered", True)
        tasks, solutions = _tasks(settings.set, solutions_file, settings.grid_limit, answered)
        # The set's name in records says so when large tasks are left out: such scores are not comparable.
        whole = settings.grid_limit >= LARGEST
        more.setdefault("scope", settings.scope)
        return cls(
            model=trimmed(model) if more["recipe"].trim_vocab else model,
            weights=weights,
            dataset=settings.set if whole else f"{settings.set}, grids to {settings.grid_limit}",
            tasks=subset(tasks, settings.tasks, seed),
            solutions=solutions,
            arms=arms,
            steps=settings.steps,
            context=settings.context,
            views=settings.views,
            **more,
        )


@dataclass(frozen=True)
class ArmsJob:
    """What the process that trains is given (harness.tune.experiment). `report` is None where nothing is autotuned;
    `folder` is "" where no disk is shared with the process that stores the rows."""

    spec: TuneSpec
    tasks: tuple[Task, ...]
    solutions: Solutions
    arms: tuple[str, ...]
    folder: str
    fresh: bool = False
    report: DeviceReport | None = None
    environment: dict[str, str] = field(default_factory=dict)  # of a card, as rows carry it


def settings_for(catalog: Catalog, model: ModelSpec, alone: bool = True) -> TuneDefaults:
    """models.yaml's settings for fine-tuning `model`, with the context cut to the model's longest.

    Where several models are compared (not `alone`), only how it is trained is the model's own, so that all have the
    same tasks.
    """
    own = catalog.ttft.of(model)
    settings = own if alone else catalog.ttft.override(**own.training)
    return settings.override(context=min(settings.context, model.max_context))


def must_have_weights(model: ModelSpec, weights_name: str) -> None:
    """Raises UserError where there is nothing to fine-tune: no weights, or ones that are quantised already."""
    if model.quantized:
        raise UserError(f"{model.name}: accuracy not measured: {trainable.not_loaded(model)}")
    if weights_name == weights.RANDOM:
        raise UserError(f"{model.name}: {NO_WEIGHTS}")


def _check(model: ModelSpec, weights_name: str, settings: TuneDefaults, more: dict[str, Any]) -> None:
    # Values that must be one of a list.
    if precision := more.get("precision"):
        precisions.requested(precision)
    for name, option, allowed in (
        ("encoding", "encoding", ENCODINGS),
        ("scope", "scope", SCOPES),
        ("way with long prompts", "too_long", TOO_LONG),
        ("decoder", "decode", DECODERS),
        ("selection", "select", SELECTIONS),
    ):
        if option in more and more[option] not in allowed:
            raise unknown(name, more[option], allowed)
    if more.get("curve") and (more.get("decode", GREEDY), more.get("select", VOTE)) != (GREEDY, VOTE):
        raise UserError("--project-to measures greedy answers chosen by vote; leave out --decode and --select")
    must_have_weights(model, weights_name)
    # Numbers.
    for option, value, kind in (
        ("--steps", settings.steps, limits.Steps),
        ("--context", settings.context, limits.Prompt),
        ("--views", settings.views, limits.Views),
        ("--grid-limit", settings.grid_limit, limits.Side),
        ("--tasks", settings.tasks, limits.Tasks),
        ("--learning-rate", settings.learning_rate, limits.LearningRate),
        ("--seed", more.get("seed"), limits.Seed),
    ):
        limits.within(option, value, kind)
    if settings.context > model.max_context:
        window = f"the window of {model.name}, {model.max_context} tokens"
        raise UserError(f"--context {settings.context} is beyond {window}")


def _tasks(source: str, solutions_file: str | None, limit: int, answered: bool) -> tuple[list[Task], Solutions]:
    tasks, solutions = load(source, solutions_file)
    usable = [task for task in tasks if task.id in solutions or not answered]
    if not usable:
        raise UserError(f"{source}: no task has its solution; name Kaggle's solutions file with --solutions")
    small = within(usable, limit)
    if not small:
        raise UserError(f"{source}: no task has all its grids within {limit} a side; ask for a larger --grid-limit")
    return small, solutions
