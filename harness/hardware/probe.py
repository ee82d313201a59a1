"""The matrix product rates of the device in each dtype, measured in the shapes of forward and of backward.

A library may report a dtype as supported and emulate it (`torch.cuda.is_bf16_supported()` on a T4), and on a CPU
without 16-bit instructions the product of the backward can be a hundred times slower than that of the forward. So
both are timed. A 16-bit dtype is native where it is clearly faster than fp32; fp32 always is.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from harness.errors import UserError, first_line
from harness.hardware.device import TORCH_DTYPES, choose_device, synchronizer
from harness.hardware.info import Device, DeviceReport
from harness.records.measurement import MatmulSpeed
from harness.records.stored import from_stored, to_stored

NATIVE_FACTOR = 1.2  # times fp32's rate; hardware 16-bit is 2 to 15 times as fast, emulation at best on a par
_SHAPES = {"cpu": ((64, 256, 256), (128, 896, 896), (256, 896, 4864)), "cuda": ((512, 512, 512), (4096, 4096, 4096))}
_LARGER_BELOW_S = 0.05  # the next larger shape is tried only if this one was faster
_REPEAT_BELOW_S = 0.25  # a slower product runs once
_REPEATS = 5


def rates(
    device: torch.device, names: Iterable[str], clock: Callable[[], float] = time.perf_counter
) -> dict[str, MatmulSpeed]:
    """The rate of each dtype in `names` and of fp32; one that the device refuses is left out.

    Raises UserError where fp32 fails or memory runs out.
    """
    wait = synchronizer(device)
    directions = {}
    for name in dict.fromkeys(("fp32", *names)):
        try:
            directions[name] = _directions(TORCH_DTYPES[name], device, wait, clock)
        except RuntimeError as problem:
            # "not implemented for 'Half'": the device has no such product. Without fp32 it has none at all.
            if name == "fp32" or isinstance(problem, torch.OutOfMemoryError):
                reason = first_line(problem)
                raise UserError(f"{device} cannot multiply matrices: {reason}; try another with --device") from None
    # What is native shows against fp32.
    speeds = {name: MatmulSpeed(forward, backward, native=True) for name, (forward, backward) in directions.items()}
    fp32 = speeds["fp32"]
    return {name: replace(speed, native=speed is fp32 or is_native(speed, fp32)) for name, speed in speeds.items()}


def find_device(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """The job that finds a device and does not load it: {requested, gpus} to a `Device`, as stored."""
    return to_stored(choose_device(payload["requested"], gpus=payload["gpus"]))


def report_device(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """The job that times a device: {device, dtypes} to a `DeviceReport`, as stored."""
    device = from_stored(payload["device"], Device)
    return to_stored(DeviceReport(device, rates(torch.device(device.id), payload["dtypes"])))


def is_native(speed: MatmulSpeed, fp32: MatmulSpeed) -> bool:
    """Whether a dtype of this speed is computed in hardware, given fp32's on the same device."""
    return speed.combined >= NATIVE_FACTOR * fp32.combined


def _directions(
    dtype: torch.dtype, device: torch.device, wait: Callable[[], None], clock: Callable[[], float]
) -> tuple[float, float]:
    """(forward, backward) in FLOP/s: x @ w.T, and x's gradient g @ w, at the largest shape that is fast enough."""
    flops_per_s, slow = [0.0, 0.0], [False, False]
    # From small to large: an emulated dtype must not hang in a large product.
    for m, k, n in _SHAPES[device.type]:
        x = torch.randn(m, k).to(device, dtype)
        w = torch.randn(n, k).to(device, dtype)
        g = torch.randn(m, n).to(device, dtype)
        for i, (a, b) in enumerate(((x, w.T), (g, w))):
            if not slow[i]:
                seconds = _fastest(partial(torch.matmul, a, b), wait, clock, wait_first=device.type == "cuda")
                flops_per_s[i], slow[i] = 2 * m * k * n / seconds, seconds > _LARGER_BELOW_S
    return flops_per_s[0], flops_per_s[1]


def _fastest(
    product: Callable[[], torch.Tensor], wait: Callable[[], None], clock: Callable[[], float], wait_first: bool
) -> float:
    """Seconds of the fastest of a few runs without the first; a slow product runs once only."""
    if wait_first:  # the first call on a card loads libraries and kernels
        product()
        wait()
    # The first run warms caches up and counts only if it is slow, when no other follows.
    best = float("inf")
    for run in range(_REPEATS + 1):
        wait()
        start = clock()
        product()
        wait()
        seconds = clock() - start
        if run or seconds > _REPEAT_BELOW_S:
            best = min(best, seconds)
        if seconds > _REPEAT_BELOW_S:
            break
    return best
