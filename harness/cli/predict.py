"""The verbs about hardware that is not at hand: predict and calibrate."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.catalog import models as model_table
from harness.catalog import precisions as precision_table
from harness.catalog.accelerators import Accelerator
from harness.catalog.optimizers import OPTIMIZERS
from harness.catalog.recipes import ARC24, LAYERS, RecipeOptions, resolve
from harness.cli import parse
from harness.cli.options import (
    Budget,
    Contexts,
    LoraRank,
    LoraTargets,
    MicroBatch,
    Models,
    ModelsFile,
    Precisions,
    Results,
    SequencesPerStep,
    Steps,
    TrimVocab,
    Window,
    options_of,
)
from harness.errors import UserError
from harness.text import say_once

if TYPE_CHECKING:
    from rich.console import Console

    from harness.predict.calibration import Calibration
    from harness.predict.prediction import Prediction
    from harness.predict.query import PredictQuery, Unpredictable
    from harness.records.imported import ImportedRun
    from harness.records.measurement import Measurement


def configure(
    models: Models = None,
    *,
    precisions: Precisions = None,
    contexts: Contexts = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help='As in "t4 l4", 2xt4, cpu or cuda (this machine), or a YAML file of your own; t4 by default.'
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="own, reference, or arc24: as its published runs were.")] = None,
    compute: Annotated[
        str | None, typer.Option(help="Dtype of products by int4 or int8 weights: fp32, fp16, bf16 (the card's own).")
    ] = None,
    lora_r: LoraRank = None,
    lora_targets: LoraTargets = None,
    adapter_dtype: Annotated[str | None, typer.Option(help="Of the adapters' weights: fp32, bf16 or fp16.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}: moments and masters as it has them.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="lora, dora or full.")] = None,
    split: Annotated[
        str, typer.Option(help="Several cards: data (each its sequences) or layers (one at a time).")
    ] = "data",
    sequences_per_step: SequencesPerStep = None,
    micro_batch: MicroBatch = None,
    checkpointing: Annotated[
        str | None, typer.Option(help="Activations made again in the backward: none, mlp (gate and up) or all.")
    ] = None,
    trim_vocab: TrimVocab = False,
    budget_hours: Budget = None,
    steps: Steps = None,
    window: Window = None,
    models_file: ModelsFile = None,
    targets: "Sequence[tuple[Accelerator, Calibration]] | None" = None,
) -> "PredictQuery":
    """The request: cells on the cards that `gpu` names, or on `targets`. Raises UserError for an invalid value."""
    from harness.predict.query import PredictQuery, card_named

    catalog = model_table.load(models_file)
    specs = parse.models_of(models, catalog, window)
    names = parse.words(precisions) or catalog.defaults.precisions
    chosen = [precision_table.requested(name) for name in names]
    # What arc24 quantised computed in bitsandbytes' default.
    default = "fp32" if recipe == ARC24 else None
    chosen = [precision_table.computing_in(p, compute or (default if p.quantized else None)) for p in chosen]
    cards = list(targets or map(card_named, _card_words(gpu, "t4")))
    if not cards:
        raise UserError("--gpu names no accelerator; use t4, l4, cpu ...")
    counts = {accelerator.count for accelerator, _ in cards}
    # One recipe divides its steps among one number of cards; arc24 has its own.
    if len(counts) > 1 and recipe != ARC24:
        raise UserError("--gpu names different numbers of cards; ask for them one by one")
    # Resolved per precision below, for arc24 recomputes over quantised weights only.
    options = RecipeOptions(
        name=recipe,
        gpus=counts.pop(),
        split=split,
        method=method,
        lora_r=lora_r,
        lora_targets=lora_targets,
        adapter_dtype=adapter_dtype,
        optimizer=optimizer,
        sequences_per_step=sequences_per_step,
        micro_batch=micro_batch,
        recompute=checkpointing,
        trim_vocab=trim_vocab,
    )
    lengths = [parse.context_of(word) for word in parse.words(contexts)]
    # Nothing is predicted beyond what a model was made for.
    for spec in specs:
        for context in lengths:
            if context > spec.max_context:
                raise UserError(f"context {context} is beyond {spec.name}'s window of {spec.max_context} tokens")
    return PredictQuery(
        models=[model_table.trimmed(spec) if trim_vocab else spec for spec in specs],
        precisions=chosen,
        contexts=lengths or list(catalog.defaults.contexts[cards[0][0].kind]),
        accelerators=cards,
        recipes={p.name: resolve(catalog.recipe, options, bool(p.quantized)) for p in chosen},
        goal=parse.goal(catalog, budget_hours, steps),
        fill_memory=micro_batch is None,
    )


def _card_words(gpu: str | None, default: str = "") -> list[str]:
    return parse.words((default if gpu is None else gpu).replace("x ", "x"))


@options_of(configure)
def predict(
    model: Annotated[str | None, typer.Option("--model", help="The same, as an option.")] = None,
    max_context: Annotated[
        bool, typer.Option("--max-context", help="The longest context that fits each card.")
    ] = False,
    max_batch: Annotated[
        bool, typer.Option("--max-batch", help="The largest micro-batch that fits each card.")
    ] = False,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="The smallest of all cards, 1, 2 or 4 of them, that does the whole goal.")
    ] = False,
    price: Annotated[
        list[str] | None, typer.Option("--price", help='With --smallest: euros per hour, as in "l4=0.35 2xt4=0.5".')
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the predictions to this file.")] = None,
    **options: Any,
) -> None:
    """Predict time and memory on hardware that is not at hand, with an interval; nothing is measured.

    Examples:

      harness predict --model phi-3-mini --precision int4 --context 4096 --gpu t4

      harness predict qwen-0.5b qwen-1.5b --precision "fp16 int4" --context "2048 4096" --gpu "2xt4"

      harness predict qwen2.5-3b --precision int4 --gpu l4 --max-context

      harness predict qwen2.5-3b --precision int4 --context 4096 --smallest --price "l4=0.35 a100-80gb=1.9"
    """
    from harness.predict import query
    from harness.report import style

    if max_context and max_batch:
        raise UserError("--max-context and --max-batch look for one edge each; ask for them one by one")
    # --model is one more name.
    if model:
        options["models"] = [*(options["models"] or []), model]
    if price and not smallest:
        raise UserError("--price is for the cheapest card; it goes with --smallest")
    if smallest:
        if max_context or max_batch:
            raise UserError("--smallest looks for a card; leave out --max-context and --max-batch")
        _show_smallest(options, price, csv)
        return
    search = partial(query.find_largest, batch=max_batch) if max_context or max_batch else query.predict_all
    answers = show_predictions(configure(**options), style.console(), search, csv)
    if all(isinstance(answer, query.Unpredictable) for answer in answers):
        raise typer.Exit(1)


def _show_smallest(options: dict[str, Any], price: list[str] | None, csv: Path | None) -> None:
    """Prints the smallest card per cell, and with prices the cheapest; exit code 1 where no cell has any."""
    from harness.hardware.environment import versions
    from harness.predict import smallest
    from harness.predict.query import card_named
    from harness.predict.trace_pool import TracePool
    from harness.report import predictions, style
    from harness.report.progress import ProgressLine
    from harness.report.smallest import smallest_table

    if options.get("recipe") == ARC24:
        raise UserError("--recipe arc24 runs on two cards, one at a time; leave it out, or --smallest")
    prices = smallest.prices_of(parse.words(price))
    cards = smallest.candidates([card_named(word) for word in _card_words(options.pop("gpu", None))])
    out = style.console()

    def on(card: "tuple[Accelerator, Calibration]") -> "PredictQuery | None":
        one = configure(**options, targets=[(replace(card[0], count=1), card[1])])
        # A step whose sequences so many cards cannot share equally is none of the goal's.
        shares = [recipe.sequences_per_step % (card[0].count * recipe.micro_batch) for recipe in one.recipes.values()]
        if card[0].count == 1:
            return one
        return None if any(shares) and options.get("split") != LAYERS else configure(**options, targets=[card])

    goal = configure(**options).goal
    with TracePool(versions()) as tracers, ProgressLine(out) as progress:
        choices = smallest.choose(cards, on, prices, tracers, partial(progress.count, "tracing"))
    if csv:
        shown = [prediction for choice in choices for prediction, _ in choice.shown]
        predictions.FORMATS["csv"].write(shown, goal, csv)
    smallest_table(choices, goal, prices, out)
    if not any(choice.smallest for choice in choices):
        raise typer.Exit(1)


def show_predictions(
    request: "PredictQuery", out: "Console", search: Callable[..., Any] | None = None, csv: Path | None = None
) -> "list[Prediction | Unpredictable]":
    """Prints the table of what `search` predicts, by default all cells of the request; writes it to `csv` too.

    Raises UserError for a dtype that a card does not compute, and where `csv` cannot be written.
    """
    from harness.hardware.environment import versions
    from harness.predict import query
    from harness.predict.trace_pool import TracePool
    from harness.report import predictions
    from harness.report.progress import ProgressLine

    with TracePool(versions()) as tracers, ProgressLine(out) as progress:
        answers = (search or query.predict_all)(request, tracers, partial(progress.count, "tracing"))
    # A file that cannot be written ends the command before the table.
    if csv:
        predictions.FORMATS["csv"].write(answers, request.goal, csv)
    predictions.predictions_table(answers, request.goal, out)
    return answers


def calibrate(results: Results = None) -> None:
    """Fit what a machine really reaches on its measured cells; predictions for it are then made with that.

    Examples:

      harness calibrate

      harness calibrate --results results/tesla-t4

      harness calibrate --results results/imported-l4
    """
    from harness.predict import calibration_files, imported_calibration
    from harness.predict.calibration import save_calibration
    from harness.report import style
    from harness.report.progress import ProgressLine

    rows, runs, folder = _to_fit_on(results)
    out = style.console()
    with ProgressLine(out) as progress:
        # The cells are traced without a device, and the figures of the card fitted to their seconds.
        source = f"{sum(row.ok for row in rows) + len(runs)} cells of {folder}"
        calibration = imported_calibration.calibrated(rows, runs, source, partial(progress.count, "tracing"))
    save_calibration(calibration, folder / calibration_files.NAME)
    out.print(f"{calibration.device}: {calibration.points} cells of {', '.join(calibration.models)}", markup=False)
    for kind, times in calibration.slowdown.items():
        out.print(f"  {kind:<11} {times:.2f} times its nominal seconds", markup=False)
    # The error on a model that was not fitted is what a prediction for a new one has.
    if len(calibration.models) > 1:
        out.print(
            f"With each model left out in turn, seconds are off by {calibration_files.typical_error(calibration)} "
            "(standard deviation)."
        )
    else:
        out.print("One model alone says nothing of others: measure a second one for an error.")
    out.print(f"Written to {folder / calibration_files.NAME}", soft_wrap=True, markup=False)


def _to_fit_on(results: Path | None) -> "tuple[list[Measurement], list[ImportedRun], Path]":
    """The rows of a folder's record, its imported runs, either of which may be missing, and the folder."""
    from harness.records import imported, store

    folder = results or _newest()
    runs: list[ImportedRun] = []
    path = folder / imported.ROWS.name
    if path.exists():
        try:
            runs, corrupt = store.read(path, imported.ROWS)
        except OSError as problem:
            raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
        if corrupt:
            say_once(f"{corrupt} corrupt lines of {path} were left out")
    if runs and not (folder / store.NAME).exists():
        return [], runs, folder
    record = parse.record(folder)
    return record.rows, runs, folder


def _newest() -> Path:
    """The folder under results/ with the newest record, or imported runs where nobody measured anything."""
    from harness.records import imported, store

    imports = sorted(store.RESULTS.glob(f"*/{imported.ROWS.name}"), key=lambda path: path.stat().st_mtime)
    try:
        return store.latest_folder()
    except UserError:
        if not imports:
            raise
        return imports[-1].parent
