"""Judges a cell before it runs, by the seconds and memory that are predicted for the device at hand.

The one place that decides whether a cell is worth a run. A device that no table has is predicted from its probe and
the prior, with a wider interval.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.catalog import accelerators, precisions, trainable
from harness.catalog.accelerators import CPU, Accelerator
from harness.hardware.info import DeviceReport
from harness.predict import calibration_files, prediction, trace_pool
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction, PredictRequest
from harness.predict.roofline import Trace
from harness.records.cell import Cell
from harness.records.stored import to_stored
from harness.workers.local import AskFailed

SMALLEST_RUN = 4  # micro-steps: one to warm up and three samples
_GIB = 2**30


@dataclass(frozen=True)
class Judgement:
    """`status` is "" for a cell that is worth a run, else what its row says (beyond_window, unsupported, skipped,
    too_slow), with the `reason` as a sentence. `prediction` is None where there can be none."""

    status: str = ""
    reason: str = ""
    prediction: Prediction | None = None

    @property
    def smallest_run_s(self) -> float | None:
        """As the function `smallest_run_s`; None where there is no prediction."""
        return smallest_run_s(self.prediction) if self.prediction else None


def smallest_run_s(predicted: Prediction) -> float:
    """Seconds of load and `SMALLEST_RUN` micro-steps: an estimate, never reported as a measurement."""
    return predicted.load_s + SMALLEST_RUN * predicted.micro_s


class CellPredictor:
    """Judges cells for one device. `ask` (an executor's) has traces made by a process that has torch.

    `folder` is the record's: calibrations are looked for beside it.
    """

    def __init__(
        self, report: DeviceReport, folder: Path, versions: dict[str, str], ask: Callable[[str, Any], dict[str, Any]]
    ):
        self.report, self.versions, self.ask = report, versions, ask
        self.accelerator, self.calibration = device_at_hand(report, folder.parent)
        self._traces: dict[str, Trace | str] = {}
        self._imported = False

    def judge(self, cell: Cell, cap_s: float) -> Judgement:
        """Whether `cell` is worth a run: its smallest run may take `cap_s` seconds."""
        if cell.context > cell.model.max_context:
            return Judgement("beyond_window", f"the model's window is {cell.model.max_context} tokens")
        # The window needs no trace, so it comes first; then memory, then time.
        predicted = self.predict(cell)
        if isinstance(predicted, str):
            return Judgement("unsupported", predicted)
        if reason := too_big(predicted, self.report.device.total_bytes):
            return Judgement("skipped", reason, predicted)
        # A run that is too slow is refused with the dtype that would be faster, if there is one.
        least_s = smallest_run_s(predicted)
        if least_s <= cap_s:
            return Judgement(prediction=predicted)
        reason = (
            f"not started: about {predicted.micro_s:.0f} s per micro-step, {least_s:.0f} s at least, cap {cap_s:.0f} s"
        )
        if not self.report.rates[cell.compute_dtype].native:
            native = precisions.native_dtype(self.report.rates)
            reason += f"; {cell.compute_dtype} is emulated here: use {native}"
        return Judgement("too_slow", reason, predicted)

    def predict(self, cell: Cell) -> Prediction | str:
        """The prediction of `cell`, or why there is none."""
        if cell.compute_dtype not in self.report.rates or cell.compute_dtype not in self.accelerator.rates:
            return f"this device has no {cell.compute_dtype} matrix product"
        if reason := trainable.refusal(cell.model, cell.precision, cell.compute_dtype):
            return reason
        if not self._imported:
            self.accelerator, self._imported = with_imports(self.accelerator, self.versions, self.ask), True
        # One trace at the cell's own context: a sweep needs no other length.
        precision = precisions.find(cell.precision)
        key = prediction.trace_key(cell.model, precision, cell.recipe, self.accelerator, cell.context)
        trace = self._trace(key)
        if isinstance(trace, str):
            return trace
        request = PredictRequest(
            spec=cell.model,
            precision=precision,
            recipe=cell.recipe,
            context=cell.context,
            accelerator=self.accelerator,
            calibration=self.calibration,
        )
        return prediction.predict_cell(request, {cell.context: trace})

    def _trace(self, key: trace_pool.TraceKey) -> Trace | str:
        name = key.key(self.versions)
        if name not in self._traces:
            self._traces[name] = trace_pool.load_trace(key, self.versions) or self._make_trace(key)
        return self._traces[name]

    def _make_trace(self, key: trace_pool.TraceKey) -> Trace | str:
        try:
            answer = self.ask(trace_pool.TRACE, to_stored(key))
        except AskFailed as problem:
            return f"its step cannot be traced: {problem}"
        return trace_pool.keep(key, self.versions, answer)


def device_at_hand(report: DeviceReport, results: Path) -> tuple[Accelerator, Calibration]:
    """The accelerator that `report` is of, and the best calibration for it among those under `results`."""
    device = report.device
    here = accelerators.of_probe(
        device.name, device.kind, device.total_bytes, report.rates, report.bandwidth, device.capability
    )
    return calibration_files.at_hand(here, results)


def with_imports(
    here: Accelerator, versions: dict[str, str], ask: Callable[[str, Any], dict[str, Any]] | None = None
) -> Accelerator:
    """`here`, this machine's device; a CPU with what the imports of torch's build take here."""
    return replace(here, context_bytes=trace_pool.imported_bytes(versions, ask)) if here.kind == CPU else here


def too_big(predicted: Prediction, total_bytes: int) -> str | None:
    """Why a cell surely does not fit `total_bytes`, by the low end of its interval; None where it may fit."""
    least = predicted.peak_bytes / predicted.memory_factor
    if least <= total_bytes:
        return None
    return (
        f"not started: predicted {predicted.peak_bytes / _GIB:.1f} GiB, {least / _GIB:.1f} at least, and the device "
        f"has {total_bytes / _GIB:.1f}"
    )
