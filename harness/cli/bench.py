"""The verbs that measure, or say what they would: bench and plan."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import limits
from harness import shard as shards
from harness.catalog import models as model_table
from harness.catalog import precisions as precision_table
from harness.catalog import weights as weights_table
from harness.catalog.kernels import AUTO
from harness.catalog.models import Catalog
from harness.catalog.recipes import RecipeOptions, measurable, resolve
from harness.cli import parse
from harness.cli.options import (
    Autotune,
    Budget,
    Contexts,
    Device,
    Fit,
    Gpus,
    Kernels,
    LoraTargets,
    MicroBatch,
    Models,
    ModelsFile,
    On,
    Precisions,
    Ray,
    RecipeName,
    Results,
    ShardOption,
    Steps,
    Track,
    TrimVocab,
    Weights,
    Window,
    options_of,
)
from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.measure.config import SweepConfig
    from harness.pipeline import BenchResult


def configure(
    models: Models = None,
    *,
    contexts: Contexts = None,
    precisions: Precisions = None,
    budget_hours: Budget = None,
    steps: Steps = None,
    weights: Weights = "auto",
    recipe: RecipeName = None,
    lora_targets: LoraTargets = None,
    gpus: Gpus = 1,
    trim_vocab: TrimVocab = False,
    kernels: Kernels = AUTO,
    micro_batch: MicroBatch = None,
    autotune: Autotune = False,
    device: Device = "auto",
    results: Results = None,
    window: Window = None,
    models_file: ModelsFile = None,
    sample_seconds: Annotated[float | None, typer.Option(help="Most seconds of sampling per cell.")] = None,
    cap_seconds: Annotated[float | None, typer.Option(help="Cells predicted above this are not started.")] = None,
    arc_lengths: Annotated[
        bool | None,
        typer.Option("--arc-lengths/--no-arc-lengths", help="Time steps over ARC's lengths too; by default on a card."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the record has already.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Measure again what crashed, was killed or timed out.")
    ] = False,
    shard: ShardOption = None,
    force: Annotated[bool, typer.Option("--force", help="Do not wait until others leave the CPU alone.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random weights and tokens.")] = 0,
) -> "tuple[SweepConfig, Catalog]":
    """The config of a sweep, and the catalogue. Raises UserError for the first invalid value.

    From Python, lists serve as well as texts: contexts=[1024, 4096].
    """
    from harness.measure.config import SweepConfig

    limits.within("--seed", seed, limits.Seed)
    catalog = model_table.load(models_file)
    specs = parse.models_of(models, catalog, window)
    # A folder holds the weights of one architecture.
    if len(specs) > 1 and weights not in ("auto", "hub", "random"):
        raise UserError(f"--weights {weights} is one model's folder, but {len(specs)} models are named")
    names = parse.words(precisions) or catalog.defaults.precisions
    lengths = [parse.context_of(word) for word in parse.words(contexts)]
    # What the user leaves out comes from models.yaml.
    options = RecipeOptions(
        name=recipe, gpus=gpus, trim_vocab=trim_vocab, kernels=kernels, lora_targets=lora_targets,
        micro_batch=micro_batch,
    )  # fmt: skip
    config = SweepConfig(
        models=[
            (model_table.trimmed(spec) if trim_vocab else spec, weights_table.resolve(spec, weights)) for spec in specs
        ],
        precisions=[precision_table.requested(name) for name in names],
        recipe=resolve(catalog.recipe, measurable(options)),
        contexts={kind: lengths or catalog.defaults.contexts[kind] for kind in parse.DEVICE_KINDS},
        sample_seconds=parse.by_device_kind("--sample-seconds", sample_seconds, catalog.defaults.sample_seconds),
        cap_seconds=parse.by_device_kind("--cap-seconds", cap_seconds, catalog.defaults.cap_seconds),
        goal=parse.goal(catalog, budget_hours, steps),
        device=parse.device_of(device),
        results=results,
        targets_given=lora_targets is not None,
        fresh=fresh,
        retry=retry,
        autotune=autotune,
        fill_memory=micro_batch is None,
        arc_lengths=arc_lengths,
        force=force,
        seed=seed,
        shard=shards.parse(shard, os.environ),
    )
    return config, catalog


@options_of(configure)
def bench(
    accuracy: Annotated[bool, typer.Option(help="Fine-tune models with weights for a short time too.")] = True,
    fit: Fit = False,
    ray: Ray = None,
    on: On = None,
    track: Track = None,
    **options: Any,
) -> None:
    """Profile models: steps per minute, memory, hours for 1000 steps, whether that fits the budget, and how accurate.

    Examples:

      harness bench qwen-0.5b

      harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4" --budget-hours 12

    Stopped at any time and started again, it goes on where it was.
    """
    # Imported here, so that --help and `plan` need no torch.
    from harness import pipeline
    from harness.hardware.environment import versions
    from harness.measure import doctor
    from harness.report import side_by_side, style, trackers
    from harness.report.progress import ProgressLine

    options["autotune"] |= fit
    tracked_by = parse.trackers_of(track)
    config, catalog = configure(**options)
    out = style.console()
    # Versions that were not tested are a warning, not a reason to stop.
    for line in doctor.untested(versions()):
        print(line, file=sys.stderr)
    # The tables are shown after the sweep and again after the fine-tunes, so that a kill loses neither.
    with ProgressLine(out, config.goal.steps) as progress:

        def on_result(result: "BenchResult") -> None:
            progress.clear()
            _write_and_show(result, config, out)

        fleet = parse.fleet_of(ray, on, config.device, config.recipe.data_parallel)
        if fleet:
            results = pipeline.bench_fleet(config, catalog, progress, fleet, on_result, accuracy=accuracy)
        else:
            results = [pipeline.bench(config, catalog, progress, on_result, accuracy=accuracy)]
    if len(results) > 1:
        side_by_side.show([result.swept for result in results], config.goal, out)
    for result in results:
        trackers.show_after(tracked_by, result.swept.folder, out)
    # A script sees by the exit code that no cell was measured; a share that is empty is no failure.
    rows = [row for result in results for row in result.swept.rows]
    if not any(row.ok for row in rows) and not (config.shard and not rows):
        raise typer.Exit(1)


def _write_and_show(result: "BenchResult", config: "SweepConfig", out: "Console") -> None:
    """Writes the files of the whole record, and prints the tables of this bench's rows."""
    from harness.report import formats
    from harness.report.page.beside import write_beside
    from harness.report.terminal import MOST_NOTES, show

    record = parse.record(result.swept.folder)
    # The files hold the whole record, earlier sweeps too; the tables only this one.
    for name in formats.FORMATS:
        formats.write(name, record.rows, record.results, config.goal, record.folder)
    page = write_beside(record.folder, config.goal)
    names = [entry.file_name for entry in formats.FORMATS.values()] + ([page.name] if page else [])
    out.print(f"Record, {', '.join(names[:-1])} and {names[-1]} in {record.folder}/", soft_wrap=True, markup=False)
    show(result.swept.rows, result.results, config.goal, out, MOST_NOTES)


def plan(
    models: Models = None,
    contexts: Contexts = None,
    precisions: Precisions = None,
    models_file: ModelsFile = None,
    device: Device = "auto",
    window: Window = None,
    gpu: Annotated[
        str | None, typer.Option(help='Predict for "t4", "2xt4", "cpu" ...; else for the device measured last.')
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Plan a run of solve over these: Kaggle's challenges, a folder, or a set.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="With --tasks: an adapter per task (task), or one (shared).")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="With --tasks: optimiser steps per adapter.")] = None,
    views: Annotated[int | None, typer.Option(help="With --tasks: views that vote on each answer.")] = None,
    decode: Annotated[
        str | None, typer.Option(help="With --tasks: how answers are found; greedy, sample or dfs.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="With --tasks: how attempts are chosen; by vote, or by score.")
    ] = None,
    sequences_per_step: Annotated[int | None, typer.Option(help="With --tasks: instead of the recipe's.")] = None,
    lora_targets: Annotated[str | None, typer.Option(help="With --tasks: instead of the recipe's.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --tasks: whose tokenizer counts; auto, random, a folder.")
    ] = None,
    budget_hours: Annotated[float | None, typer.Option(help="With --tasks: hours for all; 12 on Kaggle.")] = None,
    workers: Annotated[int | None, typer.Option(help="With --tasks: processes; by default one per card.")] = None,
    results: Annotated[Path | None, typer.Option(help="With --tasks: the record whose runs' seconds count.")] = None,
) -> None:
    """Show what a bench would measure, without measuring, and what each cell is predicted to take.

    With --tasks it plans a run of solve instead: its hours, the odds that every task is answered in time, and the most
    steps and views that fit.

    Examples:

      harness plan qwen-0.5b phi-3-mini --contexts "1024 4096 8192"

      harness plan qwen-0.5b --contexts "1024 4096" --gpu l4

      harness plan qwen3-4b --tasks arc2-evaluation --gpu 4xl4 --steps 128 --sequences-per-step 1 --views 16
    """
    run_options = {
        "scope": scope, "steps": steps, "views": views, "decode": decode, "select": select,
        "sequences_per_step": sequences_per_step, "lora_targets": lora_targets, "weights": weights,
        "budget_hours": budget_hours, "workers": workers, "results": results,
    }  # fmt: skip
    given = {name: value for name, value in run_options.items() if value is not None}
    if tasks:
        from harness.cli.solve import plan_tasks

        plan_tasks(models, tasks, context=contexts, precision=precisions, device=device, gpu=gpu, window=window,
                   models_file=models_file, **given)  # type: ignore[arg-type]  # fmt: skip
        return
    if given:
        option = "--" + next(iter(given)).replace("_", "-")
        raise UserError(f"{option} goes with --tasks: it is about a run of solve")
    from harness.cli import predict as predict_verb
    from harness.predict import calibration_files
    from harness.report import info, style

    words: dict[str, Any] = {
        "contexts": contexts, "precisions": precisions, "models_file": models_file, "window": window,
    }  # fmt: skip
    config, _ = configure(models, weights="random", device=device, **words)
    out = style.console()
    info.plan_table(config, out)
    # A card that is named needs no record.
    if gpu:
        predict_verb.show_predictions(predict_verb.configure(models, gpu=gpu, **words), out)
        return
    # Without a card that is named: the device of the newest record, if that says enough.
    target = calibration_files.last_swept_device()
    if not target:
        out.print('With --gpu "t4" (or l4, cpu ...) time and memory of each cell are predicted.', markup=False)
        return
    try:
        predict_verb.show_predictions(predict_verb.configure(models, targets=[target], **words), out)
    except UserError as problem:
        out.print(f"Not predicted by the last record: {problem}", markup=False)
