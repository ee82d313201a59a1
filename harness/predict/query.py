"""From what `harness predict` was asked to predictions: each cell on each card, and the largest that a card holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.catalog import accelerators, recipes
from harness.catalog import models as catalog
from harness.catalog import precisions as precision_table
from harness.catalog.accelerators import Accelerator
from harness.catalog.precisions import Precision
from harness.cli.parse import context_of, goal, shared_by, words
from harness.errors import UserError, unknown
from harness.predict import calibration_files, prediction, trace_pool
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction
from harness.records.cell import CHECKPOINTING, DORA, FULL, LORA, Goal, ModelSpec, Recipe

DATA, LAYERS = "data", "layers"
_METHODS = (LORA, DORA, FULL)
_STEP = 64  # tokens that the largest context is a multiple of
_TRIED = (512, 1024, 2048)


@dataclass(frozen=True)
class Question:
    """What was asked, checked. `recipe` gives the recipe for a precision (some depend on whether it is quantised)."""

    models: Sequence[ModelSpec]
    precisions: Sequence[Precision]
    contexts: Sequence[int]
    cards: Sequence[tuple[Accelerator, Calibration]]
    recipe: Callable[[Precision], Recipe]
    goal: Goal


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
) -> Question:
    """Raises UserError for the first value that cannot be."""
    file = catalog.load(models_file)
    names = [name for text in ([models] if isinstance(models, str) else models) for name in words(text)]
    specs = [file.find(name) for name in names or [file.defaults.model]]
    chosen = [precision_table.find(name) for name in words(precisions or "")]
    if method not in (None, *_METHODS):
        raise unknown("method", method, _METHODS)
    if split not in (DATA, LAYERS):
        raise unknown("split", split, (DATA, LAYERS))
    if checkpointing not in (None, *CHECKPOINTING):
        raise unknown("checkpointing", checkpointing, CHECKPOINTING)
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
        found = recipes.named(recipe, file.recipe, bool(precision.quantized))
        found = replace(found, trim_vocab=trim_vocab, method=method or found.method)
        found = replace(found, micro_batch=micro_batch or found.micro_batch)
        if checkpointing is not None:
            found = replace(found, gradient_checkpointing=CHECKPOINTING[checkpointing])
        if found.layer_split > 1:  # the recipe says how the cards are used
            return found
        return shared_by(count, found) if split == DATA else replace(shared_by(1, found), layer_split=count)

    for precision in chosen:
        of(precision)
    kind = cards[0][0].kind
    asked = [context_of(word) for word in words(contexts or "")] or list(file.defaults.contexts[kind])
    for spec in specs:
        for context in asked:
            if contexts and context > spec.window:
                raise UserError(f"context {context} is beyond {spec.name}'s window of {spec.window} tokens")
    return Question(
        [catalog.trimmed(spec) if trim_vocab else spec for spec in specs],
        chosen or [precision_table.find(name) for name in file.defaults.precisions],
        asked,
        cards,
        of,
        goal(budget_hours, steps, file),
    )


def _card(name: str) -> tuple[Accelerator, Calibration]:
    """The accelerator of that name with its calibration; "cpu" is this machine's, as its probe finds it."""
    if name != accelerators.CPU:
        on = accelerators.find(name)
        return on, calibration_files.for_card(on)
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from harness.records.cell import Rate
    from harness.workers.process import Survey

    with TemporaryDirectory() as logs, Survey(Path(logs) / "survey.log") as look:
        device = look.ask(ask="device", device="cpu")
        rates = look.ask(ask="rates", device="cpu", dtypes=precision_table.DTYPES)
    found = {dtype: Rate(**rate) for dtype, rate in rates.items()}
    return calibration_files.for_cpu(accelerators.cpu(device["name"], device["total_bytes"], found))


@dataclass(frozen=True)
class Failed:
    """A cell that nothing can be said of, and why."""

    spec: ModelSpec
    precision: Precision
    context: int
    on: Accelerator
    reason: str


def answer(
    asked: Question, tracers: trace_pool.Tracers, on_done: Callable[[int, int], None] = lambda done, total: None
) -> list[Prediction | Failed]:
    """Every model x precision x context on every card, in that order.

    Raises UserError for a dtype that a card does not compute.
    """
    cells = [
        (spec, precision, min(context, spec.window), on, calibration)
        for spec in asked.models
        for precision in asked.precisions
        for context in asked.contexts
        for on, calibration in asked.cards
    ]
    for _, precision, _, on, _ in cells:
        on.rate(prediction.compute_of(precision, on))
    wanted = [prediction.subjects(s, p, asked.recipe(p), on, context) for s, p, context, on, _ in cells]
    found = iter(tracers.all_of([each for by_length in wanted for each in by_length.values()], on_done))
    out: list[Prediction | Failed] = []
    for (spec, precision, context, on, calibration), lengths in zip(cells, wanted, strict=True):
        by_length = {n: next(found) for n in lengths}
        if wrong := [each for each in by_length.values() if isinstance(each, str)]:
            out.append(Failed(spec, precision, context, on, wrong[0]))
            continue
        out.append(prediction.predict(spec, precision, asked.recipe(precision), on, by_length, context, calibration))
    return out


def largest(
    asked: Question,
    tracers: trace_pool.Tracers,
    on_done: Callable[[int, int], None] = lambda done, total: None,
    batch: bool = False,
) -> list[Prediction | Failed]:
    """For each model, precision and card the cell with the longest context that surely fits its memory; with `batch`
    that with the largest micro-batch at the first context asked for.

    Each is found on memory traced at small sizes, then traced itself: nothing is taken from the curve alone.
    """
    out: list[Prediction | Failed] = []
    for spec in asked.models:
        for precision in asked.precisions:
            for on, calibration in asked.cards:
                recipe = asked.recipe(precision)
                on.rate(prediction.compute_of(precision, on))

                def at(size: int, of=(spec, precision, recipe, on, calibration)) -> Prediction | str:
                    spec, precision, recipe, on, calibration = of
                    context = min(asked.contexts[0], spec.window) if batch else size
                    recipe = replace(recipe, micro_batch=size) if batch else recipe
                    wanted = prediction.subjects(spec, precision, recipe, on, context)
                    found = dict(zip(wanted, tracers.all_of(list(wanted.values()), on_done), strict=True))
                    if wrong := [each for each in found.values() if isinstance(each, str)]:
                        return wrong[0]
                    return prediction.predict(spec, precision, recipe, on, found, context, calibration)

                if batch:
                    share = recipe.sequences_per_step // recipe.processes
                    sizes, tried = [n for n in range(1, share + 1) if share % n == 0], (1, 2)
                else:
                    sizes, tried = list(range(_STEP, spec.window + 1, _STEP)), _TRIED
                found = _last_that_fits(at, sizes, tried)
                out.append(Failed(spec, precision, 0, on, found) if isinstance(found, str) else found)
    return out


def _last_that_fits(
    at: Callable[[int], Prediction | str], sizes: Sequence[int], tried: Sequence[int]
) -> Prediction | str:
    """The prediction at the last of `sizes` that fits for sure, or why there is none.

    `tried` are looked at first; then where the line through the two nearest the edge meets the card's memory, until
    the next size is known not to fit.
    """
    seen: dict[int, Prediction] = {}
    low, high = 0, len(sizes)  # sizes[:low] fit, sizes[high:] do not
    first = [sizes.index(size) for size in tried if size in sizes] or [0]
    while low < high:
        i = first.pop(0) if first else _guess(seen, sizes, low, high)
        if not low <= i < high:
            continue
        found = at(sizes[i])
        if isinstance(found, str):
            return found
        seen[sizes[i]] = found
        low, high = (i + 1, high) if found.fits_memory() else (low, i)
    if low:
        return seen[sizes[low - 1]]
    return f"not even {min(seen)} fit: {seen[min(seen)].peak_bytes / 2**30:.1f} GiB needed"


def _guess(seen: dict[int, Prediction], sizes: Sequence[int], low: int, high: int) -> int:
    """The index between `low` and `high` of the last size below the edge, by the line through two that were seen."""
    near = sorted(seen, key=lambda n: abs(seen[n].peak_bytes * seen[n].safety - seen[n].on.memory_bytes))[:2]
    if len(near) < 2:
        return (low + high - 1) // 2
    a, b = near
    slope = (seen[a].peak_bytes - seen[b].peak_bytes) / (a - b)
    if slope <= 0:
        return high - 1
    edge = a + (seen[a].on.memory_bytes / seen[a].safety - seen[a].peak_bytes) / slope
    return max(low, sum(size <= edge for size in sizes[:high]) - 1)
