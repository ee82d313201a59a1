"""From what `harness predict` was asked to predictions: each cell on each card, and the largest that a card holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.catalog import accelerators
from harness.catalog.accelerators import Accelerator
from harness.catalog.precisions import Precision
from harness.predict import calibration_files, prediction, trace_pool
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.workers.local import LocalExecutor
from harness.workers.look import look

_STEP = 64  # tokens that the largest context is a multiple of
_TRIED = (512, 1024, 2048)


@dataclass(frozen=True, kw_only=True)
class PredictQuery:
    """What was asked, checked."""

    models: Sequence[ModelSpec]
    precisions: Sequence[Precision]
    contexts: Sequence[int]
    accelerators: Sequence[tuple[Accelerator, Calibration]]
    recipes: Mapping[str, Recipe]  # by the name of the precision: some depend on whether it is quantised
    goal: Goal


def card_named(name: str) -> tuple[Accelerator, Calibration]:
    """The accelerator of that name with its calibration; "cpu" is this machine's, as its probe finds it."""
    if name != accelerators.CPU:
        accelerator = accelerators.find(name)
        return accelerator, calibration_files.for_card(accelerator)
    report = look(LocalExecutor(), accelerators.CPU)
    here = accelerators.cpu(report.device.name, report.device.total_bytes, report.rates)
    return calibration_files.for_cpu(here)


@dataclass(frozen=True)
class Unpredictable:
    """A cell that nothing can be said of, and why."""

    spec: ModelSpec
    precision: Precision
    context: int
    accelerator: Accelerator
    reason: str


def predict_all(
    asked: PredictQuery, tracers: trace_pool.TracePool, on_done: Callable[[int, int], None] = lambda done, total: None
) -> list[Prediction | Unpredictable]:
    """Every model x precision x context on every card, in that order.

    Raises UserError for a dtype that a card does not compute.
    """
    cells = [
        (spec, precision, min(context, spec.max_context), accelerator, calibration)
        for spec in asked.models
        for precision in asked.precisions
        for context in asked.contexts
        for accelerator, calibration in asked.accelerators
    ]
    for _, precision, _, accelerator, _ in cells:
        accelerator.rate(prediction.compute_of(precision, accelerator))
    wanted = [
        prediction.subjects(s, p, asked.recipes[p.name], accelerator, context)
        for s, p, context, accelerator, _ in cells
    ]
    traces = iter(tracers.trace_all([key for by_length in wanted for key in by_length.values()], on_done))
    out: list[Prediction | Unpredictable] = []
    for (spec, precision, context, accelerator, calibration), lengths in zip(cells, wanted, strict=True):
        by_length = {n: next(traces) for n in lengths}
        if wrong := [each for each in by_length.values() if isinstance(each, str)]:
            out.append(Unpredictable(spec, precision, context, accelerator, wrong[0]))
            continue
        out.append(
            prediction.predict(
                spec, precision, asked.recipes[precision.name], accelerator, by_length, context, calibration
            )
        )
    return out


def find_largest(
    asked: PredictQuery,
    tracers: trace_pool.TracePool,
    on_done: Callable[[int, int], None] = lambda done, total: None,
    batch: bool = False,
) -> list[Prediction | Unpredictable]:
    """For each model, precision and card the cell with the longest context that surely fits its memory; with `batch`
    that with the largest micro-batch at the first context asked for.

    Each is found on memory traced at small sizes, then traced itself: nothing is taken from the curve alone.
    """
    out: list[Prediction | Unpredictable] = []
    for spec in asked.models:
        for precision in asked.precisions:
            for accelerator, calibration in asked.accelerators:
                recipe = asked.recipes[precision.name]
                accelerator.rate(prediction.compute_of(precision, accelerator))

                def at(size: int, of=(spec, precision, recipe, accelerator, calibration)) -> Prediction | str:
                    spec, precision, recipe, accelerator, calibration = of
                    context = min(asked.contexts[0], spec.max_context) if batch else size
                    recipe = replace(recipe, micro_batch=size) if batch else recipe
                    wanted = prediction.subjects(spec, precision, recipe, accelerator, context)
                    found = dict(zip(wanted, tracers.trace_all(list(wanted.values()), on_done), strict=True))
                    if wrong := [each for each in found.values() if isinstance(each, str)]:
                        return wrong[0]
                    return prediction.predict(spec, precision, recipe, accelerator, found, context, calibration)

                if batch:
                    share = recipe.sequences_per_step // recipe.data_parallel
                    sizes, tried = [n for n in range(1, share + 1) if share % n == 0], (1, 2)
                else:
                    sizes, tried = list(range(_STEP, spec.max_context + 1, _STEP)), _TRIED
                found = _last_that_fits(at, sizes, tried)
                out.append(Unpredictable(spec, precision, 0, accelerator, found) if isinstance(found, str) else found)
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
    near = sorted(
        seen, key=lambda n: abs(seen[n].peak_bytes * seen[n].memory_factor - seen[n].accelerator.memory_bytes)
    )[:2]
    if len(near) < 2:
        return (low + high - 1) // 2
    a, b = near
    slope = (seen[a].peak_bytes - seen[b].peak_bytes) / (a - b)
    if slope <= 0:
        return high - 1
    edge = a + (seen[a].accelerator.memory_bytes / seen[a].memory_factor - seen[a].peak_bytes) / slope
    return max(low, sum(size <= edge for size in sizes[:high]) - 1)
