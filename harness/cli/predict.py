"""The verb about hardware that is not at hand: predict."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.arc.lengths import PUBLISHED
from harness.catalog import accelerators
from harness.catalog import models as model_table
from harness.catalog import precisions as precision_table
from harness.catalog.accelerators import Accelerator
from harness.catalog.optimizers import OPTIMIZERS
from harness.catalog.recipes import ARC24, RecipeOptions, resolve
from harness.cli import lengths, parse
from harness.cli.options import (
    Budget,
    Contexts,
    LoraRank,
    LoraTargets,
    MicroBatch,
    Models,
    ModelsFile,
    Precisions,
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
    beyond_window: Annotated[
        bool, typer.Option("--beyond-window", help="Predict contexts beyond a model's window, as if it took them.")
    ] = False,
    tasks: Annotated[
        str | None, typer.Option("--tasks", help="Whose lengths hours are for: a set, a folder, or Kaggle's file.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or GGUF file whose tokenizer counts these lengths; else estimated.")
    ] = None,
    tokens_per_task: Annotated[
        Path | None, typer.Option(help="Or a file of their tokens: JSON, or a number per line.")
    ] = None,
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
    cards = list(targets or map(card_named, card_words(gpu, "t4")))
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
    asked = [parse.context_of(word) for word in parse.words(contexts)]
    # Nothing is predicted beyond what a model was made for, unless that is wanted.
    for i, spec in enumerate(specs):
        if (longest := max(asked, default=0)) <= spec.max_context:
            continue
        if not beyond_window:
            window_is = f"{spec.name}'s window of {spec.max_context} tokens"
            raise UserError(f"context {longest} is beyond {window_is}; --beyond-window predicts it all the same")
        say_once(
            f"{spec.name}: {longest} tokens are beyond its window of {spec.max_context}; predicted as if it took them"
        )
        specs[i] = replace(spec, max_context=longest)
    return PredictQuery(
        models=[model_table.trimmed(spec) if trim_vocab else spec for spec in specs],
        precisions=chosen,
        contexts=asked or list(catalog.defaults.contexts[cards[0][0].kind]),
        accelerators=cards,
        recipes={p.name: resolve(catalog.recipe, options, bool(p.quantized)) for p in chosen},
        goal=parse.goal(catalog, budget_hours, steps),
        lengths=lengths.of_training(tasks, tokenizer, tokens_per_task) or PUBLISHED,
        fill_memory=micro_batch is None,
    )


def card_words(gpu: str | None, default: str = "") -> list[str]:
    """The names of cards in --gpu, which Python may give as a list, else the `default`."""
    names = gpu if isinstance(gpu, list | tuple) else [default if gpu is None else gpu]
    return accelerators.listed(", ".join(map(str, names)))


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

      harness predict qwen2.5-3b --lora-r 256 --lora-targets all-linear --adapter-dtype bf16 --optimizer adamw-8bit

      harness predict qwen2.5-3b --tasks arc2-evaluation --tokenizer ./my-model

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
        from harness.cli.smallest import show_smallest
        from harness.predict.smallest import candidates, check_prices, prices_of

        prices = prices_of(parse.words(price))
        cards = candidates([query.card_named(word) for word in card_words(options.pop("gpu"))])
        check_prices(prices, cards)
        one = configure(**options, targets=[(replace(cards[0][0], count=1), cards[0][1])])
        show_smallest(one, cards, prices, options["split"], csv)
        return
    search = partial(query.find_largest, batch=max_batch) if max_context or max_batch else query.predict_all
    answers = show_predictions(configure(**options), style.console(), search, csv)
    if all(isinstance(answer, query.Unpredictable) for answer in answers):
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
