"""Inspects the device in another process, so that this one never imports torch nor holds GPU memory."""

from pathlib import Path
from tempfile import TemporaryDirectory

from harness.catalog.precisions import DTYPES
from harness.errors import UserError
from harness.hardware.info import DeviceReport
from harness.records.stored import from_stored
from harness.workers.local import LocalExecutor, RunLimits

REPORT = "harness.hardware.probe:report_device"
_WITHIN_S = 300.0


def look(executor: LocalExecutor, requested: str, gpus: int = 1) -> DeviceReport:
    """The report on device "auto", "cpu", "cuda" or "cuda:1" (the first of `gpus`), from a process that ends after it.

    Raises UserError where there is no such device, or where the process fails.
    """
    with TemporaryDirectory() as folder:
        limits = RunLimits(log=Path(folder) / "look.log", timeout_s=_WITHIN_S)
        outcome = executor.run(REPORT, {"requested": requested, "gpus": gpus, "dtypes": DTYPES}, limits)
    if outcome.status == "timeout":
        raise UserError(f"looking at the device took over {_WITHIN_S:.0f} s; try `nvidia-smi`, or --device cpu")
    if outcome.status != "ok":
        raise UserError(f"looking at the device failed: {outcome.reason}; try `harness doctor`")
    return from_stored(outcome.result, DeviceReport)
