"""The verbs about ARC tasks: ttft and coverage."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import limits
from harness.catalog import models as model_table
from harness.catalog import weights as weights_table
from harness.catalog.kernels import AUTO
from harness.catalog.recipes import RecipeOptions, resolve
from harness.cli import lengths, parse
from harness.cli.options import (
    Autotune,
    Contexts,
    Device,
    Fit,
    Gpus,
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
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.arc.lengths import LengthDistribution
    from harness.tune.config import TuneConfig

Dataset = Annotated[
    str | None, typer.Option(help="arc1-evaluation, generated, a folder, or Kaggle's file; a+b joins sets.")
]
Encoding = Annotated[str, typer.Option(help="How grids are written: rows, spaced, numbered or shaped.")]
Decode = Annotated[
    str, typer.Option(help="greedy, sample (drawn), or dfs (all answers above 10 %); the last two write grids only.")
]
Select = Annotated[str, typer.Option(help="Attempts by vote, or by score: likelihood over all views.")]


def configure(
    model: Annotated[str | None, typer.Argument(help="A name of models.yaml, a hub id, a folder, a GGUF file.")] = None,
    *,
    arms: Annotated[
        str,
        typer.Option(help='all (the usual six), or names: "baseline, n-1"; also "on the fly", "+ mirror", mixture.'),
    ] = "all",
    tasks: Annotated[int | None, typer.Option(help="How many tasks, drawn from short to long.")] = None,
    dataset: Dataset = None,
    solutions: Annotated[str | None, typer.Option(help="Kaggle's solutions, if not beside the challenges.")] = None,
    grid_limit: Annotated[int | None, typer.Option(help="Only tasks that show no larger grid, cells per side.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of every arm that trains.")] = None,
    context: Annotated[
        int | None, typer.Option("--context", "--contexts", help="Tokens of the longest prompt.")
    ] = None,
    too_long: Annotated[str, typer.Option(help="Longer prompts: shorten (fewer demonstrations), or drop.")] = "shorten",
    scope: Annotated[
        str | None, typer.Option(help="One adapter for all tasks (shared), or one per task (task).")
    ] = None,
    views: Annotated[int | None, typer.Option(help="Augmented views that vote on each answer.")] = None,
    encoding: Encoding = "rows",
    decode: Decode = "greedy",
    select: Select = "vote",
    precision: Annotated[
        str | None, typer.Option("--precision", "--precisions", help="By default the device's native one.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    lora_targets: LoraTargets = None,
    sequences_per_step: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    weights: Weights = "auto",
    gpus: Gpus = 1,
    trim_vocab: TrimVocab = False,
    kernels: Kernels = AUTO,
    autotune: Autotune = False,
    device: Device = "auto",
    results: Results = None,
    window: Window = None,
    models_file: ModelsFile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what the record has already.")] = False,
    seed: Annotated[int, typer.Option(help="Of the tasks drawn, the order of examples, and dropout.")] = 0,
    curve: bool = False,
) -> "TuneConfig":
    """The config of a fine-tune. Raises UserError for the first invalid value, and for a model without weights."""
    from harness.tune.config import TuneConfig, settings_for

    catalog = model_table.load(models_file)
    spec = parse.model_of(model or catalog.defaults.model, catalog, window)
    # models.yaml's settings for this model, then what the user changes.
    settings = settings_for(catalog, spec).override(
        set=dataset,
        grid_limit=grid_limit,
        tasks=tasks,
        steps=steps,
        context=context,
        views=views,
        learning_rate=learning_rate,
        scope=scope,
        sequences_per_step=sequences_per_step,
        lora_targets=lora_targets,
    )
    # `settings` has what the user, the model or the file says, in this order.
    options = RecipeOptions(gpus=gpus, kernels=kernels, trim_vocab=trim_vocab, **settings.of_recipe)
    return TuneConfig.of(
        spec,
        weights_table.resolve(spec, weights),
        settings,
        solutions_file=solutions,
        arms=arms,
        recipe=resolve(catalog.recipe, options),
        precision=precision,
        encoding=encoding,
        scope=settings.scope,
        too_long=too_long,
        decode=decode,
        select=select,
        curve=curve,
        autotune=autotune,
        seed=seed,
        device=parse.device_of(device),
        results=results,
        fresh=fresh,
    )


@options_of(configure)
def ttft(
    project_to: Annotated[int | None, typer.Option(help="Estimate the accuracy after so many steps.")] = None,
    repeats: Annotated[int, typer.Option(help="Train each arm with so many seeds: what another seed changes.")] = 1,
    show: Annotated[int, typer.Option(help="Show the first so many tasks with their predictions here.")] = 0,
    pictures: Annotated[int, typer.Option(help="Draw the first so many tasks as SVG beside the record.")] = 0,
    old_set: Annotated[str | None, typer.Option("--set", hidden=True)] = None,
    fit: Fit = False,
    ray: Ray = None,
    on: On = None,
    shard: ShardOption = None,
    track: Track = None,
    **options: Any,
) -> None:
    """Test-time fine-tune a model with weights on ARC tasks, arm by arm at equal steps, and measure its accuracy.

    Examples:

      harness ttft

      harness ttft qwen-0.5b --weights hub --arms all --tasks 20

      harness ttft ./my-model --arms "baseline, + color swap" --steps 128 --views 8 --project-to 1000 --show 3
    """
    from harness.records.arm import ROWS
    from harness.records.store import Store
    from harness.report import formats, style, trackers, weight_notes
    from harness.report import pictures as drawing
    from harness.report import ttft as table
    from harness.report.page.beside import write_beside
    from harness.report.progress import ProgressLine
    from harness.tune import run

    limits.within("--project-to", project_to, limits.Steps)
    limits.within("--repeats", repeats, limits.Repeats)
    limits.within("--show", show, limits.Shown)
    limits.within("--pictures", pictures, limits.Shown)
    tracked_by = parse.trackers_of(track)
    # Older words of the same options.
    options["dataset"] = options["dataset"] or old_set
    options["autotune"] |= fit
    config = configure(**options, curve=project_to is not None)
    if share := parse.shard_of(shard, len(config.arms), "arms"):
        config = replace(config, arms=share.of(config.arms))
    out = style.console()
    with ProgressLine(out) as progress:
        fleet = parse.fleet_of(ray, on, config.device, config.recipe.data_parallel)
        result = run.run(config, progress, fleet=fleet)
        # The same tasks; an arm that does not train has no seed.
        trained = [arm for arm in config.arms if arm.examples]
        for seed in range(config.seed + 1, config.seed + repeats) if trained else ():
            progress.note(f"seed {seed}")
            run.run(replace(config, seed=seed, arms=trained), progress, fleet=fleet)
    record = list(Store(result.folder, kind=ROWS).rows().values())
    weight_notes.show((), result.rows, out)
    best = table.arms_table(result.rows, out, project_to, record)
    goal = parse.goal(model_table.load(options["models_file"]))
    with style.hindered("arms.csv"):
        formats.write("arms", (), record, goal, result.folder)
    if page := write_beside(result.folder, goal, (config.tasks, config.solutions)):
        out.print(f"\nRecord and page: {page}", soft_wrap=True, markup=False)
    trackers.show_after(tracked_by, result.folder, out)
    if best is None:
        raise typer.Exit(1)
    # The best arm's answers, beside the true outputs.
    outcome = (config.tasks, best.attempts, config.solutions)
    drawing.show_grids(*outcome, out, show)
    if pictures > 0:
        caption = f"{config.model.name}, {best.arm}, {best.steps} steps"
        paths = drawing.write_pictures(result.folder / "pictures", *outcome, caption, pictures)
        out.print(f"{len(paths)} pictures in {result.folder / 'pictures'}/", soft_wrap=True, markup=False)


def coverage(
    source: Annotated[str, typer.Argument(help="A set, a folder, or Kaggle's file.")] = "arc1-evaluation",
    contexts: Contexts = "1024 2048 4096 8192",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of a tokenizer, or a GGUF file; without one lengths are estimated.")
    ] = None,
    encoding: Encoding = "rows",
) -> None:
    """Show how long a set's prompts are, and which share of them fits each context.

    Examples:

      harness coverage

      harness coverage arc2-evaluation --contexts "2048 8192" --tokenizer ./my-model
    """
    from harness.report import info, style

    out = style.console()
    if tokenizer:
        out.print("tokenising every prompt ...")
    info.coverage_table(*_coverage(source, contexts, tokenizer, encoding), out)


def _coverage(
    source: str, contexts: parse.Words, tokenizer: str | None, encoding: str
) -> tuple["list[LengthDistribution]", list[int], str]:
    """Lengths of the set's sequences, the contexts, and how the lengths were found. Raises UserError."""
    # The contexts are checked before the tasks are read.
    limits = [parse.context_of(word) for word in parse.words(contexts)]
    if not 1 <= len(limits) <= 5:
        raise UserError(f"--contexts names {len(limits)} contexts; give one to five")
    made, how = lengths.of_set(source, tokenizer, encoding)
    return made, limits, how
