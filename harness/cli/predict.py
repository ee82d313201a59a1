"""The verbs about hardware that is not at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Budget, Models, ModelsFile, Results, Steps, TrimVocab
from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


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
    from harness.predict.trace_pool import Tracers
    from harness.report import predictions, style
    from harness.report.progress import Counting

    if max_context and max_batch:
        raise UserError("--max-context and --max-batch look for one edge each; ask for them one by one")
    out = style.console()
    asked = query.read(
        [*(models or []), *([model] if model else [])], precision, context, gpu, recipe, method, split, micro_batch,
        checkpointing, trim_vocab, budget_hours, steps, models_file,
    )  # fmt: skip
    with Tracers(versions()) as tracers, Counting(out, "tracing") as counting:
        if max_context or max_batch:
            found = query.largest(asked, tracers, counting.show, batch=max_batch)
        else:
            found = query.answer(asked, tracers, counting.show)
    if csv:
        predictions.to_csv(found, asked.goal, csv)
    predictions.table(found, asked.goal, out)
    if all(isinstance(each, query.Failed) for each in found):
        raise typer.Exit(1)


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
    from harness.predict.trace_pool import Tracers
    from harness.report import predictions
    from harness.report.progress import Counting

    last = None if gpu else calibration_files.of_last_sweep()
    if not gpu and not last:
        out.print('With --gpu "t4" (or l4, cpu ...) time and memory of each cell are predicted.', markup=False)
        return
    cards = gpu or [last]
    asked = query.read(
        models or [], precisions, contexts, cards, None, None, query.DATA, None, None, False, None, None, models_file
    )
    try:
        with Tracers(versions()) as tracers, Counting(out, "tracing") as counting:
            found = query.answer(asked, tracers, counting.show)
    except UserError as problem:
        if gpu:
            raise
        out.print(f"Not predicted by the last record: {problem}", markup=False)
        return
    predictions.table(found, asked.goal, out)


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
    from harness.report.progress import Counting

    rows, _, _, folder, _ = parse.record(results, None, None, None)
    out = style.console()
    with Counting(out, "tracing") as counting:
        found = calibration_files.calibrated(rows, f"{sum(row.ok for row in rows)} cells of {folder}", counting.show)
    calibrations.write(found, folder / calibration_files.NAME)
    out.print(f"{found.device}: {found.points} cells of {', '.join(found.models)}", markup=False)
    for kind, times in found.slowness.items():
        out.print(f"  {kind:<11} {times:.2f} times its nominal seconds", markup=False)
    if len(found.models) > 1:
        out.print(
            f"With each model left out in turn, seconds are off by {calibration_files.typical_error(found)} "
            "(standard deviation)."
        )
    else:
        out.print("One model alone says nothing of others: measure a second one for an error.")
    out.print(f"Written to {folder / calibration_files.NAME}", soft_wrap=True, markup=False)
