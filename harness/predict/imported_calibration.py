"""A calibration by imported runs, alone or beside the measured cells of the same card."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.catalog import accelerators
from harness.catalog.accelerators import CUDA
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import calibration, calibration_files, roofline
from harness.predict.calibration import MEASURED_ELSEWHERE, Calibration, Point
from harness.predict.imported import predictable
from harness.predict.trace_pool import TracePool
from harness.records.cell import OPTIMIZED
from harness.records.imported import ImportedRun
from harness.records.measurement import Measurement

_LOG_SIGMA = 0.1  # of an imported run's seconds: its warm-up and its waiting are in them
_LEAST_SHARE = 0.5  # of a step that is left for its micro-steps when the update is taken off


def calibrated(
    rows: Sequence[Measurement],
    runs: Sequence[ImportedRun],
    source: str,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """The calibration by ok `rows` of one device and by `runs` on the same card; without rows on the card of the last
    run. Memory is fitted on measured rows alone. Raises UserError where there is nothing to fit it on."""
    if not runs:
        return calibration_files.calibrated(rows, source, on_done)
    measured = calibration_files.points_of_rows(rows, on_done) if any(row.ok and row.micro_s for row in rows) else None
    card = measured[0] if measured else accelerators.find(runs[-1].cell.device_name)
    usable = [run for run in runs if run.cell.device_name == card.name]
    with TracePool(versions()) as pool:
        predicted = predictable(usable, pool)
    points, processes = [point for _, point, _ in measured[1]] if measured else [], []
    if measured:
        processes = [memory for _, _, memory in measured[1] if memory.peak > 0]
    # A step less its update, per micro-step, beside the nominal seconds of the trace.
    for run, cell in predicted:
        micro_steps = cell.recipe.micro_steps_per_step
        micro_s = max(run.step_s - cell.update_s, _LEAST_SHARE * run.step_s) / micro_steps
        points.append(Point(run.cell.model.name, roofline.nominal_seconds(cell.trace, card), micro_s, _LOG_SIGMA))
    if not points:
        raise UserError("none of the imported runs can be traced; see `harness doctor`")
    steps = {row.cell.recipe.implementation for row, _, _ in measured[1]} if measured else set()
    steps |= {run.cell.recipe.implementation for run, _ in predicted}
    fitted = calibration.fit(
        device=card.name,
        kind=CUDA,
        points=points,
        processes=processes,
        source=f"{source}, {len(predicted)} of them imported",
        step=OPTIMIZED if OPTIMIZED in steps else steps.pop(),
        nominal=None if calibration_files.is_listed(card) else card,
    )
    # Others' cards of the kind are none of this machine's.
    return fitted if measured else replace(fitted, evidence=MEASURED_ELSEWHERE)
