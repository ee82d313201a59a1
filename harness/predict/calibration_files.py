"""Which calibration serves an accelerator: the user's own, the one that comes with the program, or what is assumed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, hypot
from pathlib import Path
from statistics import median

from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import CPU, Accelerator
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import calibration, prediction, roofline, trace_pool
from harness.predict.calibration import Calibration, MemoryPoint, Point
from harness.records import store
from harness.records.cell import OPTIMIZED
from harness.records.measurement import Measurement
from harness.records.store import RESULTS, latest_folder

NAME = "calibration.json"
_SHIPPED = Path(__file__).parents[1] / "assets" / "calibrations"
_OTHER_CPU_SIGMA = 0.3


def for_card(accelerator: Accelerator, results: Path = RESULTS) -> Calibration:
    """The newest of the user's calibrations of this card, else the program's own, else what is assumed of any."""
    if own := _own(results, lambda device: _is(device, accelerator)):
        return own
    shipped = _SHIPPED / f"{accelerator.name}.json"
    return calibration.read(shipped) if shipped.exists() else calibration.prior(accelerator.kind)


def for_cpu(here: Accelerator, results: Path = RESULTS) -> tuple[Accelerator, Calibration]:
    """This CPU with the figures that its calibration is relative to, and that; another's with a wider interval where it
    has none."""
    if own := _own(results, lambda device: device == here.name):
        return own.nominal or here, own
    found = calibration.read(_SHIPPED / "cpu.json")
    wider = hypot(found.error, _OTHER_CPU_SIGMA)
    return here, replace(found, error=wider, source=f"fitted on another CPU ({found.device})")


def last_swept_device(results: Path = RESULTS) -> tuple[Accelerator, Calibration] | None:
    """The device of the newest record under `results`, with the dtypes that its rows tell of; None where there is no
    such record, or no row of a device that predictions can be made for."""
    try:
        rows, _ = store.read(latest_folder(results) / store.NAME)
        accelerator = _measured_on([row for row in rows if row.rate])
    except (UserError, OSError, IndexError):
        return None
    return for_cpu(accelerator, results) if accelerator.kind == CPU else (accelerator, for_card(accelerator, results))


def _own(results: Path, wanted: Callable[[str], bool]) -> Calibration | None:
    """The newest calibration under `results` whose device is wanted. Raises UserError for a file that is none."""
    for path in sorted(results.glob(f"*/{NAME}"), key=lambda path: path.stat().st_mtime, reverse=True):
        if wanted((found := calibration.read(path)).device):
            return found
    return None


def _is(device: str, accelerator: Accelerator) -> bool:
    try:
        return accelerators.find(device).name == accelerator.name
    except UserError:
        return False


def points_of_rows(
    rows: Sequence[Measurement], on_done: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Accelerator, list[tuple[Measurement, Point, MemoryPoint]]]:
    """The accelerator that ok `rows` of one device were measured on, and what calibrating by each takes.

    Raises UserError where no row was measured, or none can be traced.
    """
    rows = [row for row in rows if row.ok and row.micro_s]
    if not rows:
        raise UserError("no cell of this record was measured; run `harness bench` first")
    device = rows[-1].cell.device_name
    rows = [row for row in rows if row.cell.device_name == device and row.cell.recipe.data_parallel == 1]
    accelerator = _measured_on(rows)
    subjects = [
        prediction.trace_key(
            r.cell.model, precisions.find(r.cell.precision), r.cell.recipe, accelerator, r.cell.context
        )
        for r in rows
    ]
    out = []
    for row, found in zip(rows, trace_pool.trace_all(subjects, versions(), on_done), strict=True):
        if isinstance(found, str):
            continue
        found = found.computed_in(row.cell.compute_dtype)
        name, seen = row.cell.model.name, found.memory
        held = MemoryPoint(
            name,
            seen.persistent + seen.logits,
            seen.transient,
            (row.peak_bytes or 0) - accelerator.context_bytes,
            row.cell.compute_dtype == "fp32",
        )
        out.append((row, Point(name, roofline.nominal_seconds(found, accelerator), median(row.micro_s)), held))
    if not out:
        raise UserError("none of the record's models can be traced; see `harness doctor`")
    return accelerator, out


def _measured_on(rows: Sequence[Measurement]) -> Accelerator:
    name, kind = rows[-1].cell.device_name, rows[-1].cell.device.partition(":")[0]
    if kind != CPU:
        return accelerators.find(name)
    by_dtype = {row.cell.compute_dtype: row.rate for row in rows if row.rate}
    total = max(row.device_total_bytes or 0 for row in rows)
    return accelerators.cpu(name, total, by_dtype)


def calibrated(
    rows: Sequence[Measurement], source: str, on_done: Callable[[int, int], None] = lambda done, total: None
) -> Calibration:
    """The calibration by ok `rows` of one device. Raises UserError where there is nothing to fit it on."""
    accelerator, seen = points_of_rows(rows, on_done)
    return calibration.fit(
        accelerator.name if accelerator.kind != CPU else seen[-1][0].cell.device_name,
        accelerator.kind,
        [point for _, point, _ in seen],
        [held for _, _, held in seen if held.peak > 0],
        source,
        max((row.cell.recipe.implementation for row, _, _ in seen), key=lambda step: step == OPTIMIZED),
        accelerator if accelerator.kind == CPU else None,
    )


def typical_error(found: Calibration) -> str:
    """The standard deviation in words, as a factor's percentage."""
    return f"{100 * (exp(found.error) - 1):.0f} %"
