"""What predict --smallest does: the smallest card per cell, and the cheapest."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.catalog.recipes import LAYERS
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.predict.query import PredictQuery
    from harness.predict.smallest import Card, Prices


def show_smallest(  # the options of one verb
    request: "PredictQuery", cards: "Sequence[Card]", prices: "Prices", split: str, csv: Path | None
) -> None:
    """Prints the smallest of `cards` per cell of `request`, which is made for one card, and with `prices` the cheapest.

    `split` is what several cards share. Exit code 1 where no cell has any.
    """
    from harness.hardware.environment import versions
    from harness.predict import smallest
    from harness.predict.trace_pool import TracePool
    from harness.report import predictions, style
    from harness.report.progress import ProgressLine
    from harness.report.smallest import smallest_table

    if any(recipe.layer_split > 1 for recipe in request.recipes.values()):
        raise UserError("--recipe arc24 runs on two cards, one at a time; leave it out, or --smallest")

    def on(card: "Card") -> "PredictQuery | None":
        count = card[0].count
        if split == LAYERS:
            recipes = {name: replace(recipe, layer_split=count) for name, recipe in request.recipes.items()}
            return replace(request, accelerators=[card], recipes=recipes)
        recipes = {name: replace(recipe, data_parallel=count) for name, recipe in request.recipes.items()}
        # A step whose sequences so many cards cannot share equally is none of theirs.
        if any(recipe.sequences_per_step % (count * recipe.micro_batch) for recipe in recipes.values()):
            return None
        return replace(request, accelerators=[card], recipes=recipes)

    if not any(map(on, cards)):
        counts = ", ".join(dict.fromkeys(str(card.count) for card, _ in cards))
        step = " or ".join(dict.fromkeys(str(recipe.sequences_per_step) for recipe in request.recipes.values()))
        raise UserError(
            f"a step of {step} sequences cannot be shared equally by {counts} cards; give another --sequences-per-step "
            "or --micro-batch, or other cards with --gpu"
        )
    out = style.console()
    with TracePool(versions()) as tracers, ProgressLine(out) as progress:
        choices = smallest.choose(cards, on, request.goal, prices, tracers, partial(progress.count, "tracing"))
    if csv:
        shown = [prediction for choice in choices for prediction, _ in choice.shown]
        predictions.FORMATS["csv"].write(shown, request.goal, csv)
    smallest_table(choices, request.goal, prices, out)
    if not any(choice.smallest for choice in choices):
        raise typer.Exit(1)
