"""Inspects the device in another process, so that this one never imports torch nor holds GPU memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.catalog.precisions import DTYPES
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.info import Device, DeviceReport
from harness.records.stored import from_stored, to_stored
from harness.workers.local import AskFailed
from harness.workers.ray import Executor

FIND = "harness.hardware.probe:find_device"
REPORT = "harness.hardware.probe:report_device"


@contextmanager
def reserve(executor: Executor, requested: str, gpus: int = 1) -> Iterator[DeviceReport]:
    """Finds device "auto", "cpu", "cuda" or "cuda:1" (the first of `gpus`), locks it, times it and reports on it.

    The lock is held to the end of the `with`: nobody times a device that another process is loading. Raises UserError
    where there is no such device, where another process holds it, or where the process that looks fails.
    """
    device = find(executor, requested, gpus)
    with device_lock.hold(device):
        yield report_on(executor, device)


def find(executor: Executor, requested: str, gpus: int = 1) -> Device:
    """The device, found without loading it. Raises UserError as `reserve` does."""
    return from_stored(_ask(executor, FIND, {"requested": requested, "gpus": gpus}), Device)


def report_on(executor: Executor, device: Device) -> DeviceReport:
    """Times the device's matrix products; it should be locked. Raises UserError where that fails."""
    report = from_stored(_ask(executor, REPORT, {"device": to_stored(device), "dtypes": DTYPES}), DeviceReport)
    # The process that has timed a card holds some of its memory for as long as it lives.
    if device.kind == "cuda":
        executor.close()
    return report


def _ask(executor: Executor, job: str, payload: dict[str, Any]) -> Any:
    try:
        return executor.ask(job, payload)
    except AskFailed as problem:
        executor.close()
        raise UserError(f"looking at the device failed: {problem}; try `harness doctor`, or --device cpu") from None
