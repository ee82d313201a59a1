"""The verbs. No logic: each reads what was asked, calls what does it, and prints."""

import sys
from pathlib import Path
from typing import Annotated

import typer

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

Models = Annotated[
    list[str] | None, typer.Argument(help="Names of models.yaml, hub ids, or folders with a config.json.")
]
Contexts = Annotated[str | None, typer.Option(help='Tokens, as in "1024 4096".')]
Precisions = Annotated[str | None, typer.Option(help='Of fp32 fp16 bf16 int8 int4, as in "fp16 int4".')]
Budget = Annotated[float | None, typer.Option(help="Hours for everything; 12 on Kaggle.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps to project to.")]
Results = Annotated[Path | None, typer.Option(help="Folder of the record; by default one a device under results/.")]
ModelsFile = Annotated[Path | None, typer.Option(help="The models.yaml to read.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Weights = Annotated[
    str, typer.Option(help="auto (a local copy if there is one, else random), hub, random, or a folder.")
]


@app.command()
def bench(
    models: Models = None,
    contexts: Contexts = None,
    precisions: Precisions = None,
    budget_hours: Budget = None,
    steps: Steps = None,
    weights: Weights = "auto",
    device: Device = "auto",
    results: Results = None,
    models_file: ModelsFile = None,
    sample_seconds: Annotated[float | None, typer.Option(help="Most seconds of sampling a cell.")] = None,
    cap_seconds: Annotated[float | None, typer.Option(help="Cells estimated above this are not started.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the record has already.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Measure again what crashed, was killed or timed out.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the random weights and tokens.")] = 0,
) -> None:
    """Profile models: steps a minute, memory, hours for 1000 steps, and whether that fits the budget.

    Examples:

      harness bench qwen-0.5b

      harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4" --budget-hours 12

    Stopped at any time and started again, it goes on where it was.
    """
    from harness import checkup, inputs
    from harness.profile import provenance, sweep
    from harness.report import export, style, table
    from harness.report.progress import Live

    asked, known, goal = inputs.read(
        models, contexts, precisions, budget_hours, steps, weights, device, results, models_file,
        sample_seconds, cap_seconds, fresh, retry, seed,
    )  # fmt: skip
    out = style.console()
    for line in checkup.untested(provenance.versions()):
        print(line, file=sys.stderr)
    with Live(out) as live:
        swept = sweep.run(asked, known, live)
    everything = list(sweep.Store(swept.folder).rows().values())
    export.write_csv(everything, swept.folder / export.CSV, goal.budget_hours, goal.steps)
    export.write_benchmark(everything, swept.folder / export.BENCHMARK)
    out.print(f"Record, {export.CSV} and {export.BENCHMARK} in {swept.folder}/", soft_wrap=True, markup=False)
    table.summary(swept.rows, goal.budget_hours, goal.steps, out)
    if not any(row.ok for row in swept.rows):
        raise typer.Exit(1)


@app.command()
def models(models_file: ModelsFile = None) -> None:
    """List the models that can be named, with their aliases.

    Example:

      harness models
    """
    from harness.catalog import models as catalog
    from harness.report import listing, style

    listing.models(catalog.load(models_file), style.console())


@app.command()
def plan(
    models: Models = None,
    contexts: Contexts = None,
    precisions: Precisions = None,
    models_file: ModelsFile = None,
    device: Device = "auto",
) -> None:
    """Show what a bench would measure, without measuring.

    Example:

      harness plan qwen-0.5b phi-3-mini --contexts "1024 4096 8192"
    """
    from harness import inputs
    from harness.report import listing, style

    asked, known, _ = inputs.read(
        models, contexts, precisions, None, None, "random", device, None, models_file, None, None, False, False, 0
    )
    listing.plan(asked, known, style.console())


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
    from harness import inputs
    from harness.report import export, style, table

    rows, goal, folder, bad = inputs.record(results, budget_hours, steps, models_file)
    if csv:
        export.write_csv(rows, csv, goal.budget_hours, goal.steps)
    out = style.console()
    out.print(f"{folder}", soft_wrap=True, markup=False)
    if bad:
        print(f"{bad} corrupt lines were left out", file=sys.stderr)
    table.summary(rows, goal.budget_hours, goal.steps, out)


@app.command()
def ttft(
    model: Annotated[str | None, typer.Argument(help="A name of models.yaml, a hub id, or a folder.")] = None,
    arms: Annotated[str, typer.Option(help='all, or some by name, as in "baseline, n-1".')] = "all",
    tasks: Annotated[int, typer.Option(help="How many tasks, drawn from short to long.")] = 20,
    source: Annotated[
        str, typer.Option("--set", help="arc1-evaluation, a folder, or Kaggle's file.")
    ] = "arc1-evaluation",
    solutions: Annotated[str | None, typer.Option(help="Kaggle's solutions, if not beside the challenges.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps of every arm that trains.")] = 20,
    context: Annotated[int, typer.Option(help="Tokens; longer examples are left out, and counted.")] = 2048,
    views: Annotated[int, typer.Option(help="Augmented views that vote on each answer.")] = 2,
    encoding: Annotated[str, typer.Option(help="How grids are written: rows, spaced, numbered or shaped.")] = "rows",
    precision: Annotated[str | None, typer.Option(help="By default the device's native one.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    weights: Weights = "auto",
    device: Device = "auto",
    results: Results = None,
    models_file: ModelsFile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what the record has already.")] = False,
    project_to: Annotated[int | None, typer.Option(help="Estimate the accuracy after so many steps.")] = None,
    seed: int = 0,
) -> None:
    """Test-time fine-tune a model with weights on ARC tasks, arm by arm at equal steps, and measure its accuracy.

    Examples:

      harness ttft qwen-0.5b --weights hub --arms all --tasks 20

      harness ttft ./my-model --arms "baseline, + color swap" --steps 128 --views 8 --project-to 1000
    """
    from harness import accuracy, inputs
    from harness.report import arms as arms_table
    from harness.report import style

    asked = inputs.read_ttft(
        model, source, solutions, tasks, arms, precision, weights, encoding, learning_rate, seed, models_file
    )
    out = style.console()
    rows = accuracy.measure(
        asked, steps, context, views, encoding, device, results, seed, fresh, project_to is not None, out
    )
    arms_table.table(rows, out, project_to)


@app.command()
def coverage(
    source: Annotated[str, typer.Argument(help="A set, a folder, or Kaggle's file.")] = "arc1-evaluation",
    contexts: Contexts = "1024 2048 4096 8192",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of a tokenizer; without one lengths are estimated.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="How grids are written: rows, spaced, numbered or shaped.")] = "rows",
) -> None:
    """Show how long a set's prompts are, and which share of them fits each context.

    Examples:

      harness coverage

      harness coverage arc2-evaluation --contexts "2048 8192" --tokenizer ./my-model
    """
    from harness import inputs
    from harness.report import listing, style

    out = style.console()
    if tokenizer:
        out.print("tokenising every prompt ...")
    listing.coverage(*inputs.coverage(source, contexts, tokenizer, encoding), out)


@app.command()
def doctor(device: Device = "auto") -> None:
    """Look at this machine: device, memory, native dtypes, versions, and what is missing.

    Example:

      harness doctor
    """
    from harness import checkup
    from harness.report import listing, style

    if not listing.doctor(checkup.look(device), style.console()):
        raise typer.Exit(1)


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
