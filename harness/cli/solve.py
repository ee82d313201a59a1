"""The verb that runs a whole task set before a deadline: solve."""

import sys
import time
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import limits
from harness.catalog import accelerators
from harness.catalog import models as model_table
from harness.catalog import weights as weights_table
from harness.catalog.kernels import AUTO
from harness.catalog.recipes import RecipeOptions, resolve
from harness.cli import parse
from harness.cli.options import (
    Budget,
    Device,
    Kernels,
    LoraTargets,
    ModelsFile,
    On,
    Ray,
    Results,
    ShardOption,
    Track,
    TrimVocab,
    Weights,
    Window,
    options_of,
)
from harness.cli.ttft import Decode, Encoding, Select
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from harness.solve.config import SolveConfig

_PAGE_S = 10.0  # more than the page takes
_ARM = "+ color swap"
_MOST_DAYS = 1.0  # of a deadline given as a time of day


def configure(
    model: Annotated[str | None, typer.Argument(help="A name of models.yaml, a hub id, a folder, a GGUF file.")] = None,
    *,
    tasks: Annotated[str | None, typer.Option(help="Kaggle's file of challenges, a folder, or a set.")] = None,
    arm: Annotated[str, typer.Option(help="How the training examples vary, as in ttft.")] = _ARM,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per task.")] = None,
    views: Annotated[int | None, typer.Option(help="Augmented views that vote on each answer.")] = None,
    context: Annotated[
        int | None, typer.Option("--context", "--contexts", help="Tokens of the longest prompt.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", "--precisions", help="By default the device's native one.")
    ] = None,
    encoding: Encoding = "rows",
    decode: Decode = "greedy",
    select: Select = "vote",
    too_long: Annotated[str, typer.Option(help="Longer prompts: shorten (fewer demonstrations), or drop.")] = "shorten",
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    lora_targets: LoraTargets = None,
    sequences_per_step: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    weights: Weights = "auto",
    trim_vocab: TrimVocab = False,
    kernels: Kernels = AUTO,
    budget_hours: Budget = None,
    deadline: Annotated[str | None, typer.Option(help="A time of day instead of a budget, as in 21:30.")] = None,
    passes: Annotated[
        int, typer.Option(help="Tries of a task: beyond the first for the least sure, in time left.")
    ] = 2,
    out: Annotated[Path, typer.Option(help="The submission's file.")] = Path("submission.json"),
    solutions: Annotated[str | None, typer.Option(help="Kaggle's solutions, for a score at the end.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes with a model each; by default one per card.")] = None,
    device: Device = "auto",
    results: Results = None,
    window: Window = None,
    models_file: ModelsFile = None,
    shard: ShardOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever an earlier start has done.")] = False,
    seed: Annotated[int, typer.Option(help="Of the order of examples and of the views.")] = 0,
) -> "SolveConfig":
    """The config of a run. Raises UserError for the first invalid value, and for a model without weights."""
    from harness.arc.task import LARGEST
    from harness.records.arm import TASK
    from harness.solve.config import SolveConfig
    from harness.tune.config import TuneConfig, settings_for

    if budget_hours is not None and deadline is not None:
        raise UserError("--budget-hours and --deadline both say when it ends; give one of them")
    if workers is not None:
        limits.within("--workers", workers, limits.Cards)
    limits.within("--passes", passes, limits.Passes)
    catalog = model_table.load(models_file)
    hours = limits.within("--budget-hours", budget_hours, limits.Hours) or catalog.defaults.budget_hours
    spec = parse.model_of(model or catalog.defaults.model, catalog, window)
    # models.yaml's settings for this model, then what the user changes; all tasks, however large.
    settings = settings_for(catalog, spec).override(
        set=tasks, grid_limit=LARGEST, tasks=limits.MOST_TASKS, steps=steps, context=context, views=views,
        learning_rate=learning_rate, sequences_per_step=sequences_per_step, lora_targets=lora_targets,
    )  # fmt: skip
    options = RecipeOptions(kernels=kernels, trim_vocab=trim_vocab, **settings.of_recipe)
    tune = TuneConfig.of(
        spec,
        weights_table.resolve(spec, weights),
        settings,
        solutions_file=solutions,
        arms=arm,
        recipe=resolve(catalog.recipe, options),
        precision=precision,
        encoding=encoding,
        scope=TASK,
        too_long=too_long,
        decode=decode,
        select=select,
        seed=seed,
        device=parse.device_of(device),
        results=results,
        fresh=fresh,
        answered=False,
    )
    end = _moment(deadline) if deadline else None
    return SolveConfig(
        tune=tune,
        out=out,
        budget_s=3600 * hours,
        end=end,
        workers=workers,
        passes=passes,
        shard=parse.shard_of(shard, len(tune.tasks), "tasks"),
    )


def plan_tasks(  # the options of `plan` that are about tasks
    models: list[str] | None,
    tasks: str,
    *,
    scope: str | None = None,
    steps: int | None = None,
    views: int | None = None,
    decode: str = "greedy",
    select: str = "vote",
    context: str | None = None,
    precision: str | None = None,
    sequences_per_step: int | None = None,
    lora_targets: str | None = None,
    weights: str = "auto",
    budget_hours: float | None = None,
    workers: int | None = None,
    device: str = "auto",
    gpu: str | None = None,
    results: Path | None = None,
    window: int | None = None,
    models_file: Path | None = None,
) -> None:
    """Prints the plan of a run over `tasks`: what `solve` would take. Raises UserError for an invalid value."""
    from harness.arc.sources import load
    from harness.records.arm import DECODERS, SCOPES, SELECTIONS, TASK
    from harness.report import style
    from harness.report.progress import ProgressLine
    from harness.report.solving import show_plan
    from harness.solve.plan import PlanConfig, plan
    from harness.tune.config import settings_for

    scope = scope or TASK
    for name, value, allowed in (
        ("scope", scope, SCOPES),
        ("decoder", decode, DECODERS),
        ("selection", select, SELECTIONS),
    ):
        if value not in allowed:
            raise unknown(name, value, allowed)
    catalog = model_table.load(models_file)
    specs = parse.models_of(models, catalog, window)
    chosen, lengths = parse.words(precision), [parse.context_of(word) for word in parse.words(context)]
    cards = accelerators.listed(gpu or "")
    if max(len(specs), len(chosen), len(lengths), len(cards)) > 1:
        raise UserError("with --tasks give one model, one --precision, one --context and --gpu cards of one kind")
    settings = settings_for(catalog, specs[0]).override(
        steps=limits.within("--steps", steps, limits.Steps),
        views=limits.within("--views", views, limits.Views),
        context=limits.within("--context", lengths[0], limits.Prompt) if lengths else None,
        sequences_per_step=sequences_per_step,
        lora_targets=lora_targets,
    )
    if settings.context > specs[0].max_context:
        window_is = f"{specs[0].name}, {specs[0].max_context} tokens"
        raise UserError(f"--context {settings.context} is beyond the window of {window_is}")
    options = RecipeOptions(**settings.of_recipe)
    config = PlanConfig(
        model=specs[0],
        weights=weights_table.resolve(specs[0], weights),
        recipe=resolve(catalog.recipe, options),
        dataset=tasks,
        tasks=load(tasks)[0],
        arm=_ARM,
        steps=settings.steps,
        views=settings.views,
        context=settings.context,
        encoding="rows",
        too_long="shorten",
        scope=scope,
        decode=decode,
        select=select,
        precision=chosen[0] if chosen else None,
        budget_s=3600 * parse.goal(catalog, budget_hours).budget_hours,
        device=parse.device_of(device),
        gpu=cards[0] if cards else None,
        workers=limits.within("--workers", workers, limits.Cards),
        results=results,
    )
    out = style.console()
    with ProgressLine(out) as progress:
        planned = plan(config, progress)
    show_plan(planned, config, out)


def _moment(text: str) -> float:
    """The next time that the clock shows `text`, in seconds since the epoch. Raises UserError."""
    try:
        given = time.strptime(text, "%H:%M")
    except ValueError:
        raise UserError(f"--deadline must be a time of day such as 21:30, not {text[:80]!r}") from None
    now = time.localtime()
    moment = time.mktime((*now[:3], given.tm_hour, given.tm_min, 0, 0, 0, -1))
    return moment if moment > time.time() else moment + 86400 * _MOST_DAYS


def _with_file(options: dict[str, Any], path: Path) -> dict[str, Any]:
    """`options` with the file's settings where the command line leaves the defaults. Raises UserError."""
    from harness.solve import recipe_file

    defaults = {p.name: p.default for p in signature(configure).parameters.values()}
    chosen = recipe_file.read(path).options()
    return options | {name: value for name, value in chosen.items() if options[name] == defaults[name]}


@options_of(configure)
def solve(
    recipe: Annotated[Path | None, typer.Option(help="Settings of pick --emit; options given here win.")] = None,
    ray: Ray = None,
    on: On = None,
    track: Track = None,
    **options: Any,
) -> None:
    """Fine-tune on and answer every task of a set before a deadline, on all cards, and write Kaggle's submission.

    Examples:

      harness solve --tasks arc-agi_test_challenges.json --budget-hours 12 --out submission.json

      harness solve ./my-model --tasks challenges.json --deadline 21:30 --steps 64 --views 8

      harness solve --recipe run.yaml --tasks challenges.json

    Killed at any time and started again, it goes on, and keeps to the first start's deadline.
    """
    from harness.report import style, trackers
    from harness.report.page.beside import write_beside
    from harness.report.solving import SolveLine, summary
    from harness.solve import run

    tracked_by = parse.trackers_of(track)
    config = configure(**(_with_file(options, recipe) if recipe else options))
    out = style.console()
    with SolveLine(out) as line:
        result = run.run(config, line, fleet=parse.fleet_of(ray, on, config.tune.device))
    summary(result, config, out)
    # Drawing takes seconds, which a run that has used up its time does not have.
    if result.end - time.time() > _PAGE_S:
        goal = parse.goal(model_table.load(options["models_file"]), config.budget_s / 3600)
        if page := write_beside(result.folder, goal, (config.share, config.solutions)):
            out.print(f"page: {page}", soft_wrap=True, markup=False)
        trackers.show_after(tracked_by, result.folder, out)
    elif tracked_by:
        print("not tracked: the time is over; report --track writes it", file=sys.stderr)
    if not any(any(row.votes) for row in result.rows):
        raise typer.Exit(1)
