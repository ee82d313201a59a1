"""The verbs about hardware that is not at hand."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.catalog import models as catalog
from harness.catalog import precisions as precision_table
from harness.catalog import recipes
from harness.catalog.accelerators import Accelerator
from harness.catalog.precisions import Precision
from harness.catalog.recipes import shared_by
from harness.cli.options import Budget, Models, ModelsFile, Results, Steps, TrimVocab
from harness.cli.parse import context_of, goal, words
from harness.errors import UserError, unknown
from harness.predict.calibration import Calibration
from harness.predict.query import _METHODS, DATA, LAYERS, PredictQuery, _card
from harness.records.cell import RECOMPUTE, Recipe

if TYPE_CHECKING:
    pass


def predict(
    models: Models = None,
    model: Annotated[str | None, typer.Option("--model", help="The same, as an option.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", "--precisions", help='As in "fp16 int4".')] = None,
    context: Annotated[str | None, typer.Option("--context", "--contexts", help='Tokens, as in "1024 4096".')] = None,
    gpu: Annotated[
        str, typer.Option(help='As in "t4 l4", 2xt4, cpu (this machine), or a YAML file of your own.')
    ] = "t4",
    recipe: Annotated[str | None, typer.Option(help="own, reference, or arc24: as its published runs were.")] = None,
    method: Annotated[str | None, typer.Option(help="lora, dora or full.")] = None,
    split: Annotated[
        str, typer.Option(help="Several cards: data (each its sequences) or layers (one at a time).")
    ] = "data",
    micro_batch: Annotated[int | None, typer.Option(help="Sequences a forward and backward.")] = None,
    checkpointing: Annotated[
        str | None, typer.Option(help="Activations made again in the backward: none, mlp (gate and up) or all.")
    ] = None,
    trim_vocab: TrimVocab = False,
    max_context: Annotated[
        bool, typer.Option("--max-context", help="The longest context that fits each card.")
    ] = False,
    max_batch: Annotated[
        bool, typer.Option("--max-batch", help="The largest micro-batch that fits each card.")
    ] = False,
    budget_hours: Budget = None,
    steps: Steps = None,
    csv: Annotated[Path | None, typer.Option(help="Write the predictions to this file.")] = None,
    models_file: ModelsFile = None,
) -> None:
    """Predict time and memory on hardware that is not at hand, with an interval; nothing is measured.

    Examples:

      harness predict --model phi-3-mini --precision int4 --context 4096 --gpu t4

      harness predict qwen-0.5b qwen-1.5b --precision "fp16 int4" --context "2048 4096" --gpu "2xt4"

      harness predict qwen2.5-3b --precision int4 --gpu l4 --max-context
    """
    from harness.hardware.environment import versions
    from harness.predict import query
    from harness.predict.trace_pool import TracePool
    from harness.report import predictions, style
    from harness.report.progress import ProgressLine

    if max_context and max_batch:
        raise UserError("--max-context and --max-batch look for one edge each; ask for them one by one")
    out = style.console()
    asked = read(
        [*(models or []), *([model] if model else [])], precision, context, gpu, recipe, method, split, micro_batch,
        checkpointing, trim_vocab, budget_hours, steps, models_file,
    )  # fmt: skip
    with TracePool(versions()) as tracers, ProgressLine(out) as progress:
        if max_context or max_batch:
            found = query.find_largest(asked, tracers, partial(progress.count, "tracing"), batch=max_batch)
        else:
            found = query.predict_all(asked, tracers, partial(progress.count, "tracing"))
    if csv:
        predictions.FORMATS["csv"].write(found, asked.goal, csv)
    predictions.table(found, asked.goal, out)
    if all(isinstance(each, query.Unpredictable) for each in found):
        raise typer.Exit(1)


def calibrate(results: Results = None) -> None:
    """Fit what a machine really reaches on its measured cells; predictions for it are then made with that.

    Examples:

      harness calibrate

      harness calibrate --results results/tesla-t4
    """
    from harness.cli import parse
    from harness.predict import calibration as calibrations
    from harness.predict import calibration_files
    from harness.report import style
    from harness.report.progress import ProgressLine

    rows, _, _, folder, _ = parse.record(results, None, None, None)
    out = style.console()
    with ProgressLine(out) as progress:
        source = f"{sum(row.ok for row in rows)} cells of {folder}"
        found = calibration_files.calibrated(rows, source, partial(progress.count, "tracing"))
    calibrations.write(found, folder / calibration_files.NAME)
    out.print(f"{found.device}: {found.points} cells of {', '.join(found.models)}", markup=False)
    for kind, times in found.slowdown.items():
        out.print(f"  {kind:<11} {times:.2f} times its nominal seconds", markup=False)
    if len(found.models) > 1:
        out.print(
            f"With each model left out in turn, seconds are off by {calibration_files.typical_error(found)} "
            "(standard deviation)."
        )
    else:
        out.print("One model alone says nothing of others: measure a second one for an error.")
    out.print(f"Written to {folder / calibration_files.NAME}", soft_wrap=True, markup=False)


def read(
    models: str | Sequence[str],
    precisions: str | None,
    contexts: str | None,
    gpus: str | Sequence[tuple[Accelerator, Calibration]],
    recipe: str | None,
    method: str | None,
    split: str,
    micro_batch: int | None,
    checkpointing: str | None,
    trim_vocab: bool,
    budget_hours: float | None,
    steps: int | None,
    models_file: Any,
) -> PredictQuery:
    """Raises UserError for the first value that cannot be."""
    file = catalog.load(models_file)
    names = [name for text in ([models] if isinstance(models, str) else models) for name in words(text)]
    specs = [file.find(name) for name in names or [file.defaults.model]]
    chosen = [precision_table.find(name) for name in words(precisions or "")]
    if method not in (None, *_METHODS):
        raise unknown("method", method, _METHODS)
    if split not in (DATA, LAYERS):
        raise unknown("split", split, (DATA, LAYERS))
    if checkpointing not in (None, *RECOMPUTE):
        raise unknown("checkpointing", checkpointing, RECOMPUTE)
    if micro_batch is not None and micro_batch < 1:
        raise UserError(f"--micro-batch must be 1 or more, not {micro_batch}")
    cards = [_card(name) for name in words(gpus.replace("x ", "x"))] if isinstance(gpus, str) else list(gpus)
    if not cards:
        raise UserError("--gpu names no accelerator; use t4, l4, cpu ...")
    counts = {on.count for on, _ in cards}
    if len(counts) > 1 and recipe != recipes.ARC24:
        raise UserError("--gpu names different numbers of cards; ask for them one by one")
    count = counts.pop()

    def of(precision: Precision) -> Recipe:
        found = recipes.named(recipe, file.recipe, precision.quantized)
        found = replace(found, trim_vocab=trim_vocab, method=method or found.method)
        found = replace(found, micro_batch=micro_batch or found.micro_batch)
        if checkpointing is not None:
            found = replace(found, gradient_checkpointing=checkpointing)
        if found.layer_split > 1:  # the recipe says how the cards are used
            return found
        return shared_by(count, found) if split == DATA else replace(shared_by(1, found), layer_split=count)

    for precision in chosen:
        of(precision)
    kind = cards[0][0].kind
    asked = [context_of(word) for word in words(contexts or "")] or list(file.defaults.contexts[kind])
    for spec in specs:
        for context in asked:
            if contexts and context > spec.max_context:
                raise UserError(f"context {context} is beyond {spec.name}'s window of {spec.max_context} tokens")
    return PredictQuery(
        [catalog.trimmed(spec) if trim_vocab else spec for spec in specs],
        chosen or [precision_table.find(name) for name in file.defaults.precisions],
        asked,
        cards,
        of,
        goal(budget_hours, steps, file),
    )
