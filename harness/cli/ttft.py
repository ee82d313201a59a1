"""The verbs about accuracy: ttft, coverage and pick. No logic, as in harness.cli."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import parse
from harness.cli.options import (
    Contexts,
    Device,
    Fit,
    Gpus,
    Kernels,
    ModelsFile,
    Results,
    TrimVocab,
    Weights,
)
from harness.errors import Unsupported, UserError, unknown

if TYPE_CHECKING:
    from harness.arc.coverage import Lengths


def ttft(
    model: Annotated[str | None, typer.Argument(help="A name of models.yaml, a hub id, or a folder.")] = None,
    arms: Annotated[str, typer.Option(help='all, or some by name, as in "baseline, n-1"; also "on the fly".')] = "all",
    tasks: Annotated[int | None, typer.Option(help="How many tasks, drawn from short to long.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--set", help="arc1-evaluation, generated, a folder, or Kaggle's file; a+b joins sets."),
    ] = None,
    solutions: Annotated[str | None, typer.Option(help="Kaggle's solutions, if not beside the challenges.")] = None,
    grid_limit: Annotated[int | None, typer.Option(help="Only tasks that show no larger grid, cells a side.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of every arm that trains.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of the longest prompt.")] = None,
    too_long: Annotated[str, typer.Option(help="Longer prompts: shorten (fewer demonstrations), or drop.")] = "shorten",
    scope: Annotated[str, typer.Option(help="One adapter for all tasks (shared), or one a task (task).")] = "shared",
    views: Annotated[int | None, typer.Option(help="Augmented views that vote on each answer.")] = None,
    encoding: Annotated[str, typer.Option(help="How grids are written: rows, spaced, numbered or shaped.")] = "rows",
    precision: Annotated[str | None, typer.Option(help="By default the device's native one.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    lora_targets: Annotated[str | None, typer.Option(help="attention or all-linear, instead of the recipe's.")] = None,
    sequences_per_step: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    weights: Weights = "auto",
    gpus: Gpus = 1,
    trim_vocab: TrimVocab = False,
    kernels: Kernels = "auto",
    fit: Fit = False,
    device: Device = "auto",
    results: Results = None,
    models_file: ModelsFile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what the record has already.")] = False,
    project_to: Annotated[int | None, typer.Option(help="Estimate the accuracy after so many steps.")] = None,
    show: Annotated[int, typer.Option(help="Show the first so many tasks with their predictions here.")] = 0,
    pictures: Annotated[int, typer.Option(help="Draw the first so many tasks as SVG beside the record.")] = 0,
    seed: int = 0,
) -> None:
    """Test-time fine-tune a model with weights on ARC tasks, arm by arm at equal steps, and measure its accuracy.

    Examples:

      harness ttft

      harness ttft qwen-0.5b --weights hub --arms all --tasks 20

      harness ttft ./my-model --arms "baseline, + color swap" --steps 128 --views 8 --project-to 1000 --show 3
    """
    from harness.catalog import models as catalog
    from harness.catalog import weights as weights_of
    from harness.report import pictures as drawn
    from harness.report import style
    from harness.report import ttft as arms_table
    from harness.tune import config, run

    known = catalog.load(models_file)
    spec = known.find(model or known.defaults.model)
    how = config.How(
        arms, source, solutions, grid_limit, tasks, steps, context, views, encoding, precision, learning_rate,
        scope, too_long, project_to is not None, seed, lora_targets, sequences_per_step, gpus, trim_vocab, kernels, fit,
    )  # fmt: skip
    asked = config.of(spec, weights_of.resolve(spec, weights), how, known)
    if gpus > 1 and "RANK" not in os.environ:
        enough(device, gpus)
        from harness.train.distributed import relaunch

        raise typer.Exit(relaunch(gpus, sys.argv[1:]))
    is_rank_zero = not int(os.environ.get("RANK", 0))  # one process for all
    out = style.console(quiet=not is_rank_zero)
    rows, folder = run.measure(asked, parse.device_of(device), results, fresh, out)
    if not is_rank_zero:
        return
    last = arms_table.table(rows, out, project_to)
    told = (asked.puzzles, last.attempts, asked.solutions)
    drawn.show(*told, out, show)
    if pictures > 0:
        made = drawn.write(folder / "pictures", *told, f"{asked.model.name}, {last.arm}, {last.steps} steps", pictures)
        out.print(f"{len(made)} pictures in {folder / 'pictures'}/", soft_wrap=True, markup=False)


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
    from harness.report import info, style

    out = style.console()
    if tokenizer:
        out.print("tokenising every prompt ...")
    info.coverage(*_lengths(source, contexts, tokenizer, encoding), out)


def enough(device: str, gpus: int) -> None:
    """Raises UserError where there are not so many cards from `device` on."""
    from harness.hardware.device import choose

    choose(parse.device_of(device), gpus=gpus)


def _lengths(
    source: str, contexts: str, tokenizer: str | None, encoding: str
) -> tuple["list[Lengths]", list[int], str]:
    """Lengths of the set's sequences, the contexts, and how the lengths were found. Raises UserError."""
    from harness.arc.coverage import lengths
    from harness.arc.encode import ENCODINGS
    from harness.arc.prompt import build
    from harness.arc.sources import load as load_tasks

    if encoding not in ENCODINGS:
        raise unknown("encoding", encoding, ENCODINGS)
    wanted = [parse.context_of(word) for word in parse.words(contexts)]
    if not 1 <= len(wanted) <= 5:
        raise UserError(f"--contexts names {len(wanted)} contexts; give one to five")
    puzzles, _ = load_tasks(source)
    if tokenizer is None:
        return (
            lengths(puzzles),
            wanted,
            f"{source}: estimated, at one token per cell and newline, and 388 for the words",
        )
    from harness.train.model import load_tokenizer

    try:
        loaded = load_tokenizer(tokenizer)
    except Unsupported as problem:
        raise UserError(str(problem)) from None
    counted = lengths(puzzles, lambda pairs, asked, output: len(build(loaded, pairs, asked, output, encoding).ids))
    return counted, wanted, f"{source}: counted by the tokenizer at {tokenizer}, grids as {encoding}"
