"""The verbs. No logic: each reads what was asked, calls what does it, and prints."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import parse, predict, ttft
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
from harness.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which small LLM can I test-time fine-tune inside my budget, on my hardware?\n\n"
    "Examples:\n\n  harness bench qwen-0.5b\n\n"
    '  harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4"\n\n'
    "  harness report\n\n  harness ttft ./my-model --tasks 20\n\n  harness doctor",
)


@app.command()
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
    from harness.report import export, style
    from harness.report.progress import Live
    from harness.report.terminal import show
    from harness.tune import run as accuracies

    asked, known, goal = parse.read(
        models, contexts, precisions, budget_hours, steps, weights, device, results, models_file,
        sample_seconds, cap_seconds, fresh, retry, seed, recipe, gpus, trim_vocab, fit, kernels,
    )  # fmt: skip
    out = style.console()
    for line in doctor.untested(environment.versions()):
        print(line, file=sys.stderr)
    with Live(out) as live:
        swept = sweep.run(asked, known, live)
    results = accuracies.of_sweep(asked, known, swept, out) if accuracy else []
    everything = list(sweep.Store(swept.folder).rows().values())
    export.write_csv(everything, swept.folder / export.CSV, goal, accuracies.known_results(swept.folder))
    export.write_benchmark(everything, swept.folder / export.BENCHMARK)
    out.print(f"Record, {export.CSV} and {export.BENCHMARK} in {swept.folder}/", soft_wrap=True, markup=False)
    show(swept.rows, results, goal, out)
    if not any(row.ok for row in swept.rows):
        raise typer.Exit(1)


@app.command()
def models(models_file: ModelsFile = None) -> None:
    """List the models that can be named, with their aliases.

    Example:

      harness models
    """
    from harness.catalog import models as catalog
    from harness.report import info, style

    info.models(catalog.load(models_file), style.console())


@app.command()
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

    asked, known, _ = parse.read(
        models, contexts, precisions, None, None, "random", device, None, models_file, None, None, False, False, 0
    )
    out = style.console()
    info.plan(asked, known, out)
    predict.show(models, precisions, contexts, gpu, out, models_file)


@app.command()
def report(
    budget_hours: Budget = None,
    steps: Steps = None,
    results: Results = None,
    csv: Annotated[Path | None, typer.Option(help="Write the CSV to this file.")] = None,
    models_file: ModelsFile = None,
) -> None:
    """Print a record's tables again; needs no torch, and may judge by another budget.

    Examples:

      harness report

      harness report --budget-hours 9 --results results/tesla-t4 --csv t4.csv
    """
    from harness.report import export, style
    from harness.report.terminal import show

    rows, found, goal, folder, bad = parse.record(results, budget_hours, steps, models_file)
    if csv:
        export.write_csv(rows, csv, goal, found)
    out = style.console()
    out.print(f"{folder}", soft_wrap=True, markup=False)
    if bad:
        print(f"{bad} corrupt lines were left out", file=sys.stderr)
    show(rows, found, goal, out)


@app.command()
def doctor(device: Device = "auto") -> None:
    """Look at this machine: device, memory, native dtypes, versions, and what is missing.

    Example:

      harness doctor
    """
    from harness.measure import doctor
    from harness.report import info, style

    if not info.doctor(doctor.look(device), style.console()):
        raise typer.Exit(1)


for verb in (ttft.ttft, ttft.pick, ttft.coverage, predict.predict, predict.calibrate):
    app.command()(verb)


def main(words: list[str] | None = None) -> None:
    """Runs a verb. Exit codes: 0 done, 1 nothing measured, 2 bad input, 130 interrupted."""
    try:
        app(words, prog_name="harness")
    except UserError as problem:
        _stop(str(problem), 2)
    except KeyboardInterrupt:
        _stop("interrupted; every finished cell is in the record: run the same command to go on", 130)
    except BrokenPipeError:  # `harness report | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as problem:
        _stop(f"{problem.filename or ''}: {problem.strerror}; make room or name another folder with --results", 2)


def _stop(text: str, code: int) -> None:
    print(f"error: {' '.join(text.split())}" if code == 2 else text, file=sys.stderr)
    sys.exit(code)
