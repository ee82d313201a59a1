"""Answers a query of `harness predict`: every cell on every accelerator, or the largest cell that each one holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.arc.lengths import PUBLISHED, LengthDistribution
from harness.catalog import accelerators, precisions, trainable
from harness.catalog.accelerators import Accelerator
from harness.catalog.precisions import Precision
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import calibration_files, prediction, trace_pool
from harness.predict.calibration import Calibration
from harness.predict.cells import device_at_hand, with_imports
from harness.predict.prediction import Prediction, PredictRequest
from harness.predict.variants import default_micro_batch
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.records.store import RESULTS
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

OnDone = Callable[[int, int], None]  # traces made, of how many
_STEP = 64  # tokens that the largest context is a multiple of
_TRIED = (512, 1024, 2048)


@dataclass(frozen=True, kw_only=True)
class PredictQuery:
    """What is to be predicted, checked; each accelerator with the calibration that serves it."""

    models: Sequence[ModelSpec]
    precisions: Sequence[Precision]
    contexts: Sequence[int]
    accelerators: Sequence[tuple[Accelerator, Calibration]]
    recipes: Mapping[str, Recipe]  # by the name of the precision: some depend on whether it is quantised
    goal: Goal
    lengths: LengthDistribution = PUBLISHED  # of the sequences that hours are for
    fill_memory: bool = False  # as a sweep: on a card the default micro-batch instead of one sequence at a time

    def requests(self, contexts: Sequence[int]) -> list[PredictRequest]:
        """Every model x precision x context on every accelerator, in that order, contexts cut to the model's window,
        "native" as what it is on each.

        Raises UserError for a dtype that an accelerator does not compute.
        """
        requests = [
            PredictRequest(
                spec=spec,
                precision=precisions.resolve(precision, accelerator.native_half),
                recipe=self.recipes[precision.name],
                context=min(context, spec.max_context),
                accelerator=accelerator,
                calibration=calibration,
                lengths=self.lengths,
            )
            for spec in self.models
            for precision in self.precisions
            for context in contexts
            for accelerator, calibration in self.accelerators
        ]
        for request in requests:
            request.accelerator.rate(request.compute_dtype)
        # Each cell once: "native" may be one of the others, and two contexts may be cut to one window.
        cells: dict[tuple[str, str, int, int], PredictRequest] = {}
        for r in requests:
            cells.setdefault((r.spec.name, r.precision.name, r.context, id(r.accelerator)), r)
        return list(cells.values())


def card_named(name: str) -> tuple[Accelerator, Calibration]:
    """The accelerator of that name with its calibration; "cpu" and "cuda" are this machine's, as the probe finds them.

    Raises UserError for a card that is neither in the table nor calibrated here.
    """
    # What has no datasheet is probed.
    if name in (accelerators.CPU, accelerators.CUDA):
        with LocalExecutor() as executor, reserve(executor, name) as report:
            accelerator, calibration = device_at_hand(report, RESULTS)
            return with_imports(accelerator, versions(), executor.ask), calibration
    try:
        accelerator = accelerators.find(name)
    except UserError:
        if measured := calibration_files.measured_card(name):
            return measured
        raise
    return accelerator, calibration_files.for_card(accelerator)


@dataclass(frozen=True)
class Unpredictable:
    """A cell without a prediction, and why."""

    spec: ModelSpec
    precision: Precision
    context: int
    accelerator: Accelerator
    reason: str


def predict_all(
    query: PredictQuery, pool: trace_pool.TracePool, on_done: OnDone = lambda done, total: None
) -> list[Prediction | Unpredictable]:
    """The prediction of each of the query's cells. Raises UserError as `PredictQuery.requests` does."""
    requests = query.requests(query.contexts)
    outcomes = _predict_each(requests, pool, on_done)
    if query.fill_memory:
        _fill_memory(requests, outcomes, pool, on_done)
    return [
        Unpredictable(r.spec, r.precision, r.context, r.accelerator, outcome) if isinstance(outcome, str) else outcome
        for r, outcome in zip(requests, outcomes, strict=True)
    ]


def _fill_memory(
    requests: Sequence[PredictRequest], outcomes: list[Prediction | str], pool: trace_pool.TracePool, on_done: OnDone
) -> None:
    """Puts predictions of default micro-batches in place of `outcomes`, halved until they surely fit.

    What is too big is so one sequence at a time.
    """
    defaults = {i: default_micro_batch(alone) for i, alone in enumerate(outcomes) if isinstance(alone, Prediction)}
    sizes = {i: size for i, size in defaults.items() if size > requests[i].recipe.micro_batch}
    while sizes:
        wider = [replace(requests[i], recipe=replace(requests[i].recipe, micro_batch=n)) for i, n in sizes.items()]
        predicted = dict(zip(sizes, _predict_each(wider, pool, on_done), strict=True))
        fitting = {i: p for i, p in predicted.items() if isinstance(p, Prediction) and p.fits_memory()}
        for i, prediction_of in fitting.items():
            outcomes[i] = prediction_of
        sizes = {i: n // 2 for i, n in sizes.items() if i not in fitting and n > 2}


def _predict_each(
    requests: Sequence[PredictRequest], pool: trace_pool.TracePool, on_done: OnDone
) -> list[Prediction | str]:
    """Each prediction, or why there is none; all traces are made together."""
    # What cannot be trained so is not traced. All other keys go to the pool at once, which shares them out.
    refusals = [trainable.refusal(r.spec, r.precision.name, r.compute_dtype) for r in requests]
    keys = [{} if why else request.trace_keys() for request, why in zip(requests, refusals, strict=True)]
    traces = iter(pool.trace_all([key for by_length in keys for key in by_length.values()], on_done))
    outcomes: list[Prediction | str] = []
    for request, by_length, why in zip(requests, keys, refusals, strict=True):
        traced = {context: next(traces) for context in by_length}
        reasons = [why] if why else [trace for trace in traced.values() if isinstance(trace, str)]
        usable = {context: trace for context, trace in traced.items() if not isinstance(trace, str)}
        outcomes.append(reasons[0] if reasons else prediction.predict_cell(request, usable))
    return outcomes


def find_largest(
    query: PredictQuery,
    pool: trace_pool.TracePool,
    on_done: OnDone = lambda done, total: None,
    batch: bool = False,
) -> list[Prediction | Unpredictable]:
    """For each model, precision and accelerator the cell with the longest context that surely fits its memory; with
    `batch` that with the largest micro-batch at the query's first context.

    The search extrapolates memory from small sizes; what it returns has been traced itself.
    """
    results: list[Prediction | Unpredictable] = []
    for request in query.requests(query.contexts[:1]):

        def predict_at(size: int, request: PredictRequest = request) -> Prediction | str:
            if batch:
                request = replace(request, recipe=replace(request.recipe, micro_batch=size))
            else:
                request = replace(request, context=size)
            return _predict_each([request], pool, on_done)[0]

        if batch:
            share = request.recipe.sequences_per_step // request.recipe.data_parallel
            largest = _last_that_fits(predict_at, [n for n in range(1, share + 1) if share % n == 0], (1, 2))
        else:
            largest = _last_that_fits(predict_at, range(_STEP, request.spec.max_context + 1, _STEP), _TRIED)
        if isinstance(largest, str):
            results.append(Unpredictable(request.spec, request.precision, 0, request.accelerator, largest))
        else:
            results.append(largest)
    return results


def _last_that_fits(
    predict_at: Callable[[int], Prediction | str], sizes: Sequence[int], tried: Sequence[int]
) -> Prediction | str:
    """The prediction at the last of `sizes` that fits for sure, or why there is none.

    `tried` are looked at first; then where the line through the two nearest the edge meets the card's memory, until
    the next size is known not to fit.
    """
    predicted: dict[int, Prediction] = {}
    low, high = 0, len(sizes)  # sizes[:low] fit, sizes[high:] do not
    # Small sizes first, for their traces are cheap; then guesses, until `low` meets `high`.
    first = [sizes.index(size) for size in tried if size in sizes] or [0]
    while low < high:
        i = first.pop(0) if first else _guess(predicted, sizes, low, high)
        if not low <= i < high:
            continue
        outcome = predict_at(sizes[i])
        if isinstance(outcome, str):
            return outcome
        predicted[sizes[i]] = outcome
        low, high = (i + 1, high) if outcome.fits_memory() else (low, i)
    if low:
        return predicted[sizes[low - 1]]
    smallest = predicted[min(predicted)]
    return f"not even {min(predicted)} fit: {smallest.peak_bytes / 2**30:.1f} GiB needed"


def _guess(predicted: dict[int, Prediction], sizes: Sequence[int], low: int, high: int) -> int:
    """The index between `low` and `high` of the last size below the edge, by the line through the two nearest it."""

    def gap(size: int) -> float:
        p = predicted[size]
        return abs(p.peak_bytes * p.memory_factor - p.accelerator.memory_bytes)

    # The two sizes whose memory is nearest the card's.
    near = sorted(predicted, key=gap)[:2]
    if len(near) < 2:
        return (low + high - 1) // 2
    # Bytes per unit of size between the two, and the size at which the sure bound reaches the memory.
    a, b = near
    nearest = predicted[a]
    slope = (nearest.peak_bytes - predicted[b].peak_bytes) / (a - b)
    if slope <= 0:
        return high - 1
    edge = a + (nearest.accelerator.memory_bytes / nearest.memory_factor - nearest.peak_bytes) / slope
    return max(low, sum(size <= edge for size in sizes[:high]) - 1)
