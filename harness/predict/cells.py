"""What a sweep expects of each cell before it runs: seconds and memory, predicted for the device at hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import CPU
from harness.errors import UserError
from harness.predict import calibration_files, prediction, trace_pool
from harness.predict.prediction import Prediction
from harness.predict.roofline import Trace
from harness.records.cell import Cell
from harness.records.measurement import MatmulSpeed
from harness.records.stored import from_stored, to_stored


class CellPredictor:
    """Predictions for one device; `ask` puts a question to the survey's process, which has torch loaded already.

    A card that no catalogue has gets none.
    """

    def __init__(
        self,
        device: dict[str, Any],
        rates: dict[str, MatmulSpeed],
        folder: Path,
        versions: dict[str, str],
        ask: Callable[..., dict[str, Any]],
    ):
        self.versions, self.ask = versions, ask
        self.found: dict[str, Prediction | None] = {}
        try:
            if device["id"] == CPU:
                here = accelerators.cpu(device["name"], device["total_bytes"], rates)
                self.on, self.calibration = calibration_files.for_cpu(here, folder.parent)
            else:
                self.on = accelerators.find(device["name"])
                self.calibration = calibration_files.for_card(self.on, folder.parent)
        except UserError:
            self.on = None

    def of(self, cell: Cell, ask: bool = True) -> Prediction | None:
        """The prediction of `cell`, None where there can be none; without `ask` only if it is known already."""
        if self.on is None or cell.compute_dtype not in self.on.rates:
            return None
        precision = precisions.find(cell.precision)
        wanted = prediction.subject(cell.model, precision, cell.recipe, self.on, cell.context)
        key = f"{wanted.key(self.versions)} {cell.compute_dtype}"
        if key in self.found:
            return self.found[key]
        trace = trace_pool.load_trace(wanted, self.versions)
        if trace is None and ask:
            said = self.ask(ask="trace", subject=to_stored(wanted))
            if "unsupported" in said:
                self.found[key] = None
                return None
            trace_pool.save_trace(wanted, self.versions, said)
            trace = trace_pool.load_trace(wanted, self.versions) or from_stored(said, Trace)
        if trace is None:
            return None
        by_length = {cell.context: trace}
        self.found[key] = prediction.predict(
            cell.model, precision, cell.recipe, self.on, by_length, cell.context, self.calibration
        )
        return self.found[key]


def too_big(expected: Prediction, total_bytes: int) -> str | None:
    """Why a cell surely does not fit `total_bytes`, None where it may: judged by the low end of the interval."""
    least = expected.peak_bytes / expected.memory_factor
    if least <= total_bytes:
        return None
    gib = 2**30
    return (
        f"not started: predicted {expected.peak_bytes / gib:.1f} GiB, {least / gib:.1f} at least, and the device has "
        f"{total_bytes / gib:.1f}"
    )
