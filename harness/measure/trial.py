"""One small cell, by the way that every cell of a sweep goes: what `harness doctor` tries before it says Ready."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.catalog import precisions
from harness.catalog.model_folder import from_folder
from harness.catalog.weights import RANDOM
from harness.hardware.environment import versions
from harness.hardware.info import DeviceReport
from harness.predict.cells import CellPredictor
from harness.records.cell import Cell, Recipe
from harness.records.stored import to_stored
from harness.workers.local import LocalExecutor, RunLimits

CELL = "harness.measure.worker:measure_cell"
# The program's own, whatever models.yaml lists.
_MODEL = Path(__file__).parents[1] / "assets" / "arc-tiny"
_CONTEXT, _SAMPLE_S, _TIMEOUT_S = 256, 0.5, 180.0


def failures(
    report: DeviceReport, executor: LocalExecutor, on_tried: Callable[[int], None] = lambda tried: None
) -> dict[str, str]:
    """Why a training step does not run here, by precision: of the native one and of int4. Empty where both run.

    `on_tried` receives how many of them were tried.
    """
    native = precisions.native_dtype(report.rates)
    reasons = {}
    for tried, name in enumerate((native, "int4"), 1):
        cell = Cell(
            model=from_folder(_MODEL),
            precision=name,
            compute_dtype=native,
            context=_CONTEXT,
            recipe=Recipe(),
            weights=RANDOM,
            device=report.device.id,
            device_name=report.device.name,
        )
        if reason := _failure(cell, report, executor):
            reasons[name] = reason
        on_tried(tried)
    return reasons


def _failure(cell: Cell, report: DeviceReport, executor: LocalExecutor) -> str | None:
    with TemporaryDirectory() as folder:
        # A sweep traces a cell first: what cannot be traced is unsupported there.
        predicted = CellPredictor(report, Path(folder), versions(), executor.ask).predict(cell)
        if isinstance(predicted, str):
            return f"unsupported: {predicted}"
        limits = RunLimits(log=Path(folder) / "log", timeout_s=_TIMEOUT_S, guard_memory=report.device.kind == "cpu")
        payload = {"cell": to_stored(cell), "sample_seconds": _SAMPLE_S, "seed": 0}
        outcome = executor.run(CELL, payload, limits)
    ended = outcome.result or {"status": outcome.status, "reason": outcome.reason}
    # The log is gone with its folder.
    return None if ended["status"] == "ok" else f"{ended['status']}: {ended['reason'].removesuffix('; see log')}"
