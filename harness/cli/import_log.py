"""The verb that takes others' runs in: import-log."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import limits
from harness.catalog import accelerators
from harness.catalog import models as model_table
from harness.catalog import precisions as precision_table
from harness.catalog.recipes import RecipeOptions, resolve
from harness.cli import parse
from harness.cli.options import LoraRank, LoraTargets, ModelsFile, SequencesPerStep, options_of
from harness.errors import UserError
from harness.text import quoted

if TYPE_CHECKING:
    from harness.predict.prediction import Prediction
    from harness.records.imported import ImportedRun


@dataclass(frozen=True)
class Imports:
    """What became of logs: rows, each with its prediction, why the others were put aside, and the folders written."""

    pairs: "list[tuple[ImportedRun, Prediction]]"
    aside: list[str]
    folders: list[Path]


def take(
    files: Annotated[
        list[Path], typer.Argument(help="trainer_state.json, output of a trainer, notebooks, PEFT's JSON.")
    ],
    *,
    model: Annotated[str | None, typer.Option("--model", help="The model, if the logs do not name it.")] = None,
    gpu: Annotated[str | None, typer.Option(help='The card, as in l4 or "2xt4".')] = None,
    context: Annotated[
        int | None, typer.Option("--context", help="Tokens of a sequence, where the logs count none.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Of the frozen weights: fp32 fp16 bf16 int8 int4.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Optimiser steps in its seconds, if the log does not tell.")
    ] = None,
    sequences_per_step: SequencesPerStep = None,
    micro_batch: Annotated[int | None, typer.Option(help="Sequences per forward and backward.")] = None,
    method: Annotated[str | None, typer.Option(help="lora, dora or full.")] = None,
    lora_r: LoraRank = None,
    lora_targets: LoraTargets = None,
    checkpointing: Annotated[
        str | None, typer.Option(help="Activations made again in the backward: none, mlp or all (assumed).")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="The folder that gets the rows; by default results/imported-CARD.")
    ] = None,
    models_file: ModelsFile = None,
) -> Imports:
    """Reads the logs and appends their rows. Raises UserError for an invalid option, and for a single log without a
    row."""
    from harness.hardware.environment import versions
    from harness.logs.reading import read_log
    from harness.predict.imported import imported
    from harness.predict.logged_step import Stated
    from harness.predict.trace_pool import TracePool
    from harness.records.imported import ROWS
    from harness.records.store import RESULTS, Store, slug

    catalog = model_table.load(models_file)
    recipe = RecipeOptions(
        method=method,
        lora_r=lora_r,
        lora_targets=lora_targets,
        micro_batch=micro_batch,
        sequences_per_step=sequences_per_step,
        recompute=checkpointing,
    )
    # Every option is checked before the first log is read: its fault is none of the log's.
    resolve(catalog.recipe, replace(recipe, sequences_per_step=sequences_per_step or micro_batch))
    card = None
    if gpu is not None:
        card = accelerators.find(gpu)
        if card.name not in accelerators.ACCELERATORS:
            raise UserError(f"--gpu {quoted(gpu)}: logs are taken in for cards of the table, not for a file's")
    stated = Stated(
        spec=parse.model_of(model, catalog) if model else None,
        card=card,
        context=limits.within("--context", context, limits.Context),
        precision=precision_table.find(precision) if precision else None,
        steps=limits.within("--steps", steps, limits.Steps),
        recipe=recipe,
    )
    pairs: list[tuple[ImportedRun, Prediction]] = []
    aside: list[str] = []
    folders: list[Path] = []
    with TracePool(versions()) as pool:
        for path in dict.fromkeys(files):
            try:
                pair = imported(read_log(path), path, stated, catalog, pool)
            except UserError as problem:
                reason = str(problem) if str(problem).startswith(str(path)) else f"{path}: {problem}"
                if len(files) == 1:
                    raise UserError(reason) from None
                aside.append(reason)
                continue
            folder = results or RESULTS / f"imported-{slug(pair[0].cell.device_name)}"
            store = Store(folder, kind=ROWS)
            if store.rows().get(pair[0].key) != pair[0]:
                store.add(pair[0])
            pairs.append(pair)
            folders.append(folder)
    return Imports(pairs, aside, list(dict.fromkeys(folders)))


@options_of(take)
def import_log(**options: Any) -> None:
    """Take in what others' training logs tell of time and memory, for predictions and calibrate to be compared with.

    Examples:

      harness import-log trainer_state.json --model qwen2.5-1.5b --gpu t4 --precision int4

      harness import-log unsloth.ipynb axolotl.log --context 2048

    What a log does not tell, an option does. A log that cannot be used is put aside with its reason.
    Exit code 1 where all of several are, and 2 where a single one is.
    """
    from harness.report import style
    from harness.report.imported import imported_table

    result = take(**options)
    out = style.console()
    if result.pairs:
        imported_table(result.pairs, out)
    for reason in result.aside:
        out.print(f"- put aside: {reason}", markup=False)
    for folder in result.folders:
        out.print(
            f"Written to {folder}; `harness calibrate --results {folder}` fits on it.", soft_wrap=True, markup=False
        )
    if not result.pairs:
        raise typer.Exit(1)
