"""Chooses an accelerator's calibration: the user's own, else the program's, else the prior."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, hypot, log, sqrt
from pathlib import Path
from statistics import median, stdev

from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import CPU, Accelerator
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import calibration, prediction, roofline, step_seconds, trace_pool
from harness.predict.allocator import held_logits
from harness.predict.calibration import Calibration, MemoryPoint, Point
from harness.predict.roofline import Trace
from harness.predict.trace_pool import TraceKey
from harness.records import store
from harness.records.cell import OPTIMIZED
from harness.records.measurement import Measurement
from harness.records.store import RESULTS, latest_folder
from harness.text import say_once

NAME = "calibration.json"
_SHIPPED = Path(__file__).parents[1] / "assets" / "calibrations"
_OTHER_CPU_LOG_SIGMA = 0.3
_BURSTS = 3  # in a few seconds of samples


def at_hand(here: Accelerator, results: Path = RESULTS) -> tuple[Accelerator, Calibration]:
    """(accelerator, calibration) of `here`, which was probed: with the figures that its calibration is relative to."""
    if here.kind == CPU:
        return for_cpu(here, results)
    fitted = for_card(here, results)
    return here if is_listed(here) else _as_fitted(here, fitted), fitted


def for_card(accelerator: Accelerator, results: Path = RESULTS) -> Calibration:
    """The newest of the user's calibrations of this card, else the program's, else the prior."""
    # The user's own first: it was fitted on the user's machine.
    if own := _own(results, lambda own: _is_of(own, accelerator)):
        return own
    shipped = _SHIPPED / f"{accelerator.name}.json"
    # A card of the user's own may bear any name.
    if is_listed(accelerator) and shipped.exists():
        return _shipped(shipped)
    assumed = calibration.prior(accelerator.kind, accelerator)
    return replace(assumed, source=f"{assumed.source}; {accelerator.origin}") if accelerator.origin else assumed


def is_listed(accelerator: Accelerator) -> bool:
    """Whether its figures are those of the program's table."""
    return accelerators.ACCELERATORS.get(accelerator.name) == replace(accelerator, count=1)


def for_cpu(here: Accelerator, results: Path = RESULTS) -> tuple[Accelerator, Calibration]:
    """(accelerator, calibration) of this CPU; the shipped calibration of another CPU, with a wider interval, where it
    has none of its own."""
    if own := _own(results, lambda own: own.device == here.name):
        return _as_fitted(here, own), own
    shipped = _shipped(_SHIPPED / "cpu.json")
    error = hypot(shipped.error, _OTHER_CPU_LOG_SIGMA)
    return here, replace(shipped, error=error, source=f"fitted on another CPU ({shipped.device})")


def _shipped(path: Path) -> Calibration:
    return replace(calibration.load_calibration(path), evidence=calibration.MEASURED_ELSEWHERE)


def measured_card(name: str, results: Path = RESULTS) -> tuple[Accelerator, Calibration] | None:
    """A card outside the table that the user has calibrated under this name; None where there is none."""
    count, bare = accelerators.counted(name)
    own = _own(results, lambda own: bool(own.nominal) and own.kind != CPU and accelerators.same(own.device, bare))
    return (replace(own.nominal, count=count), own) if own and own.nominal else None


def _as_fitted(here: Accelerator, fitted: Calibration) -> Accelerator:
    """`here` with the figures that `fitted` is relative to; dtypes that those lack have the probe's."""
    nominal = fitted.nominal
    if not nominal:
        return here
    native = tuple(dict.fromkeys((*nominal.native, *(dtype for dtype in here.native if dtype not in nominal.rates))))
    return replace(nominal, rates={**here.rates, **nominal.rates}, native=native, count=here.count)


def last_swept_device(results: Path = RESULTS) -> tuple[Accelerator, Calibration] | None:
    """The device of the newest record under `results`, with the dtypes of its rows; None where there is no such record,
    or no row of a device that predictions can be made for."""
    try:
        rows, _ = store.read(latest_folder(results) / store.NAME)
        accelerator = _measured_on([row for row in rows if row.rate])
    except (UserError, OSError, IndexError):
        return None
    return at_hand(accelerator, results)


def _own(results: Path, wanted: Callable[[Calibration], bool]) -> Calibration | None:
    """The newest calibration under `results` that is wanted. stderr names a file that is none."""
    for path in sorted(results.glob(f"*/{NAME}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            own = calibration.load_calibration(path)
        except UserError as problem:
            say_once(f"left out: {problem}")
            continue
        if wanted(own):
            return own
    return None


def _is_of(own: Calibration, accelerator: Accelerator) -> bool:
    """Whether `own` was fitted on such an accelerator: one of the table under any of its names, another by its own."""
    if own.nominal or not is_listed(accelerator):
        return own.device == accelerator.name
    try:
        return accelerators.find(own.device).name == accelerator.name
    except UserError:
        return False


TraceAll = Callable[[Sequence[TraceKey], Callable[[int, int], None]], list[Trace | str]]


def _trace_all(keys: Sequence[TraceKey], on_done: Callable[[int, int], None]) -> list[Trace | str]:
    return trace_pool.trace_all(keys, versions(), on_done)


def points_of_rows(
    rows: Sequence[Measurement],
    on_done: Callable[[int, int], None] = lambda done, total: None,
    trace_all: TraceAll = _trace_all,
) -> tuple[Accelerator, list[tuple[Measurement, Point, MemoryPoint]]]:
    """The accelerator that ok `rows` of one device were measured on, and the calibration points of every row.

    Raises UserError where no row was measured, or none can be traced.
    """
    rows = [row for row in rows if row.ok and row.micro_s]
    if not rows:
        raise UserError("no cell of this record was measured; run `harness bench` first")
    # Of one device. Cards that train together each make micro-steps of their own; processes on a CPU share its cores,
    # and that is not in a trace.
    rows = [row for row in rows if row.cell.device != CPU or row.cell.recipe.data_parallel == 1]
    rows = [row for row in rows if _one_card(row) == _one_card(rows[-1])]
    if not rows:
        raise UserError(
            "every cell of this record shares the CPU with others of --gpus; run `harness bench` without it"
        )
    accelerator = replace(_measured_on(rows), count=1)
    # One trace per row, all made together.
    keys = [
        prediction.trace_key(cell.model, precisions.find(cell.precision), cell.recipe, accelerator, cell.context)
        for cell in (row.cell for row in rows)
    ]
    traces = trace_all(keys, on_done)
    points = [
        _points_of(row, trace, accelerator)
        for row, trace in zip(rows, traces, strict=True)
        if not isinstance(trace, str)
    ]
    if not points:
        raise UserError("none of the record's models can be traced; see `harness doctor`")
    return accelerator, points


def _points_of(row: Measurement, trace: Trace, accelerator: Accelerator) -> tuple[Measurement, Point, MemoryPoint]:
    """The row with its seconds and its memory, beside those of its trace."""
    trace = step_seconds.as_run(trace, row.cell.recipe, accelerator, row.cell.compute_dtype, row.kernels or "")
    nominal = roofline.nominal_seconds(trace, accelerator)
    memory_point = MemoryPoint(
        model=row.cell.model.name,
        persistent=trace.memory.persistent + round(held_logits(trace.memory.logits, accelerator.kind)),
        transient=trace.memory.transient,
        peak=(row.peak_bytes or 0) - accelerator.context_bytes,
        fp32=row.cell.compute_dtype == "fp32",
    )
    return row, Point(row.cell.model.name, nominal, median(row.micro_s), _log_sigma(row.micro_s)), memory_point


def _log_sigma(samples: Sequence[float]) -> float:
    """How uncertain the middle of `samples` is: what slows a machine down lasts for seconds, so they count as few."""
    scatter = stdev(map(log, samples)) if len(samples) > 1 else 0.0
    return hypot(calibration.MEASURED_LOG_SIGMA, scatter / sqrt(_BURSTS))


def _one_card(row: Measurement) -> str:
    """The name of one of the cards that `row` was measured on: "2 x Tesla T4" are two."""
    return accelerators.counted(row.cell.device_name)[1]


def _measured_on(rows: Sequence[Measurement]) -> Accelerator:
    cell = rows[-1].cell
    # A CPU has no datasheet, and not every card is in the table: their rates are those that the rows were probed with.
    return accelerators.of_probe(
        cell.device_name,
        cell.device.partition(":")[0],
        max(row.device_total_bytes or 0 for row in rows),
        {row.cell.compute_dtype: row.rate for row in rows if row.rate},
        next((row.bandwidth for row in reversed(rows) if row.bandwidth), None),
        rows[-1].environment.get("capability"),
    )


def calibrated(
    rows: Sequence[Measurement],
    source: str,
    on_done: Callable[[int, int], None] = lambda done, total: None,
    trace_all: TraceAll = _trace_all,
) -> Calibration:
    """The calibration by ok `rows` of one device. Raises UserError where there is nothing to fit it on."""
    accelerator, measured = points_of_rows(rows, on_done, trace_all)
    steps = {row.cell.recipe.implementation for row, _, _ in measured}
    # No table has a CPU's figures, nor those of every card, so their calibration carries them.
    fitted = calibration.fit(
        device=accelerator.name if accelerator.kind != CPU else measured[-1][0].cell.device_name,
        kind=accelerator.kind,
        points=[point for _, point, _ in measured],
        processes=[memory_point for _, _, memory_point in measured if memory_point.peak > 0],
        source=source,
        step=OPTIMIZED if OPTIMIZED in steps else steps.pop(),
        nominal=None if is_listed(accelerator) else accelerator,
    )
    imports = [row.memory.get("imported", {}).get("resident", 0) for row, _, _ in measured]
    return replace(fitted, imported_bytes=round(median(imports))) if accelerator.kind == CPU else fitted


def typical_error(fitted: Calibration) -> str:
    """The standard deviation in words, as a factor's percentage."""
    return f"{100 * (exp(fitted.error) - 1):.0f} %"
