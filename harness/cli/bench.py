"""The verbs that measure, or say what they would: bench and plan."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.catalog import models as catalog
from harness.catalog import precisions as precision_table
from harness.catalog import weights as weights_of
from harness.catalog.kernels import AUTO
from harness.catalog.recipes import _recipe, shared_by, with_kernels
from harness.cli import predict as predict_verb
from harness.cli.options import (
    Budget,
    Contexts,
    Device,
    Fit,
    Gpus,
    Kernels,
    Models,
    ModelsFile,
    Precisions,
    RecipeName,
    Results,
    Steps,
    TrimVocab,
    Weights,
)
from harness.cli.parse import context_of, device_of, goal, words
from harness.errors import UserError, positive
from harness.measure.config import SweepConfig
from harness.records.arm import known_results
from harness.records.cell import Goal, ModelSpec

if TYPE_CHECKING:
    from rich.console import Console


def bench(
    models: Models = None,
    contexts: Contexts = None,
    precisions: Precisions = None,
    budget_hours: Budget = None,
    steps: Steps = None,
    weights: Weights = "auto",
    recipe: RecipeName = None,
    gpus: Gpus = 1,
    trim_vocab: TrimVocab = False,
    kernels: Kernels = "auto",
    fit: Fit = False,
    device: Device = "auto",
    results: Results = None,
    models_file: ModelsFile = None,
    sample_seconds: Annotated[float | None, typer.Option(help="Most seconds of sampling a cell.")] = None,
    cap_seconds: Annotated[float | None, typer.Option(help="Cells estimated above this are not started.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the record has already.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Measure again what crashed, was killed or timed out.")
    ] = False,
    accuracy: Annotated[bool, typer.Option(help="Fine-tune models with weights for a short time too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the random weights and tokens.")] = 0,
) -> None:
    """Profile models: steps a minute, memory, hours for 1000 steps, whether that fits the budget, and how accurate.

    Examples:

      harness bench qwen-0.5b

      harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4" --budget-hours 12

    Stopped at any time and started again, it goes on where it was.
    """
    from harness.hardware import environment
    from harness.measure import doctor, sweep
    from harness.report import formats, style
    from harness.report.progress import ProgressLine
    from harness.report.terminal import show
    from harness.tune import run as accuracies

    asked, known, goal = read(
        models, contexts, precisions, budget_hours, steps, weights, device, results, models_file,
        sample_seconds, cap_seconds, fresh, retry, seed, recipe, gpus, trim_vocab, fit, kernels,
    )  # fmt: skip
    out = style.console()
    for line in doctor.untested(environment.versions()):
        print(line, file=sys.stderr)
    with ProgressLine(out, goal.steps) as progress:
        swept = sweep.run(asked, known, progress)
    results = accuracies.of_sweep(asked, known, swept, out) if accuracy else []
    everything = list(sweep.Store(swept.folder).rows().values())
    measured = known_results(swept.folder)
    *files, last = [formats.write(name, everything, measured, goal, swept.folder).name for name in formats.FORMATS]
    out.print(f"{', '.join(['Record', *files])} and {last} in {swept.folder}/", soft_wrap=True, markup=False)
    show(swept.rows, results, goal, out)
    if not any(row.ok for row in swept.rows):
        raise typer.Exit(1)


def plan(
    models: Models = None,
    contexts: Contexts = None,
    precisions: Precisions = None,
    models_file: ModelsFile = None,
    device: Device = "auto",
    gpu: Annotated[
        str | None, typer.Option(help='Predict for "t4", "2xt4", "cpu" ...; else for the device measured last.')
    ] = None,
) -> None:
    """Show what a bench would measure, without measuring, and what each cell is predicted to take.

    Examples:

      harness plan qwen-0.5b phi-3-mini --contexts "1024 4096 8192"

      harness plan qwen-0.5b --contexts "1024 4096" --gpu l4
    """
    from harness.report import info, style

    asked, known, _ = read(
        models, contexts, precisions, None, None, "random", device, None, models_file, None, None, False, False, 0
    )
    out = style.console()
    info.plan(asked, known, out)
    show(models, precisions, contexts, gpu, out, models_file)


def read(
    models: list[str] | None,
    contexts: str | None,
    precisions: str | None,
    budget_hours: float | None,
    steps: int | None,
    weights: str,
    device: str,
    results: Path | None,
    models_file: Path | None,
    sample_seconds: float | None,
    cap_seconds: float | None,
    fresh: bool,
    retry: bool,
    seed: int,
    recipe: str | None = None,
    gpus: int = 1,
    trim_vocab: bool = False,
    fit: bool = False,
    kernels: str = AUTO,
) -> tuple[SweepConfig, catalog.Catalog, Goal]:
    """What `harness bench` was asked. Raises UserError for the first value that cannot be."""
    known = catalog.load(models_file)
    names = [name for text in models or [] for name in words(text)] or [known.defaults.model]
    specs = _distinct([known.find(name) for name in names])
    if len(specs) > 1 and weights not in ("auto", "hub", "random"):
        raise UserError(f"--weights {weights} is one model's folder, but {len(specs)} models are named")
    chosen = [precision_table.find(name) for name in words(precisions or "")]
    asked = SweepConfig(
        models=[(catalog.trimmed(spec) if trim_vocab else spec, weights_of.resolve(spec, weights)) for spec in specs],
        precisions=chosen or [precision_table.find(name) for name in known.defaults.precisions],
        recipe=with_kernels(kernels, replace(shared_by(gpus, _recipe(recipe, known.recipe)), trim_vocab=trim_vocab)),
        contexts=[context_of(word) for word in words(contexts or "")] or None,
        device=device_of(device),
        results=results,
        sample_seconds=positive("--sample-seconds", sample_seconds),
        cap_seconds=positive("--cap-seconds", cap_seconds),
        fresh=fresh,
        retry=retry,
        seed=seed,
        fit=fit,
    )
    return asked, known, goal(budget_hours, steps, known)


def _distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    """Each model once. Raises UserError for two of one name, which no table could tell apart."""
    by_name: dict[str, ModelSpec] = {}
    for spec in specs:
        if by_name.setdefault(spec.name, spec) != spec:
            other = by_name[spec.name]
            raise UserError(f"{other.path or other.hub_id} and {spec.path or spec.hub_id} are both called {spec.name}")
    return list(by_name.values())


def show(
    models: list[str] | None,
    precisions: str | None,
    contexts: str | None,
    gpu: str | None,
    out: "Console",
    models_file: Path | None,
) -> None:
    """The table of what is predicted of these cells under the file's recipe, on `gpu`, else on the device that was
    measured last if its record says enough. Raises UserError as `predict` does."""
    from harness.hardware.environment import versions
    from harness.predict import calibration_files, query
    from harness.predict.trace_pool import TracePool
    from harness.report import predictions
    from harness.report.progress import ProgressLine

    last = None if gpu else calibration_files.last_swept_device()
    if not gpu and not last:
        out.print('With --gpu "t4" (or l4, cpu ...) time and memory of each cell are predicted.', markup=False)
        return
    cards = gpu or [last]
    asked = predict_verb.read(
        models or [], precisions, contexts, cards, None, None, query.DATA, None, None, False, None, None, models_file
    )
    try:
        with TracePool(versions()) as tracers, ProgressLine(out) as progress:
            found = query.predict_all(asked, tracers, partial(progress.count, "tracing"))
    except UserError as problem:
        if gpu:
            raise
        out.print(f"Not predicted by the last record: {problem}", markup=False)
        return
    predictions.table(found, asked.goal, out)
