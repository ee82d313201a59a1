"""The matrix product rates of the device in each dtype, measured in the shapes of forward and of backward.

A library may report a dtype as supported and emulate it (`torch.cuda.is_bf16_supported()` on a T4), and on a CPU
without 16-bit instructions the product of the backward can be a hundred times slower than that of the forward. So
both are timed. A 16-bit dtype is native where it is clearly faster than fp32; fp32 always is.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from harness.errors import UserError, first_line
from harness.hardware import card_environment, card_state
from harness.hardware.device import TORCH_DTYPES, choose_device, synchronizer
from harness.hardware.info import Device, DeviceReport
from harness.records.measurement import NATIVE_FACTOR, MatmulSpeed
from harness.records.stored import from_stored, to_stored


@dataclass(frozen=True)
class _Plan:
    """Products to time: (m, k, n), from small to large, and how long those that are `large` are kept up."""

    shapes: tuple[tuple[int, int, int], ...]
    large: int = 0  # m from which on
    warm_up_s: float = 0.0
    sustained_s: float = 0.0


# A card at rest runs at low clocks, and one product of 8192 takes a millisecond: a burst says little of its rate.
_PLANS = {
    "cpu": _Plan(((64, 256, 256), (128, 896, 896), (256, 896, 4864))),
    "cuda": _Plan(((512, 512, 512), (4096, 4096, 4096), (8192, 8192, 8192)), 4096, warm_up_s=0.2, sustained_s=0.3),
}
_LARGER_BELOW_S = 0.05  # the next larger shape is tried only if this one was faster
_REPEAT_BELOW_S = 0.25  # a slower product runs once
_REPEATS = 5
_CROWD = 8  # times that others may have slowed a product; a dtype that is slower still is emulated
_COPY_BYTES = 1 << 28  # far beyond the caches of any card


def rates(
    device: torch.device,
    names: Iterable[str],
    clock: Callable[[], float] = time.perf_counter,
    processor_clock: Callable[[], float] = time.process_time,
) -> dict[str, MatmulSpeed]:
    """The rate of each dtype in `names` and of fp32; one that the device refuses is left out.

    On a CPU a dtype is native by either clock: by seconds, or by the processor's time, which others do not take.

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
    native = {name: speed is fp32 or is_native(speed, fp32) for name, speed in speeds.items()}
    doubtful = [n for n in speeds if not native[n] and speeds[n].combined > fp32.combined / _CROWD]
    if device.type == "cpu" and doubtful:
        # Other programs may have taken the core from one dtype and not from the other: again, by the processor's time.
        timed = {
            name: MatmulSpeed(*_directions(TORCH_DTYPES[name], device, wait, processor_clock), native=True)
            for name in ("fp32", *doubtful)
        }
        native |= {name: is_native(timed[name], timed["fp32"]) for name in doubtful}
    return {name: replace(speed, native=native[name]) for name, speed in speeds.items()}


def find_device(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """The job that finds a device and does not load it: {requested, gpus} to a `Device`, as stored."""
    return to_stored(choose_device(payload["requested"], gpus=payload["gpus"]))


def report_device(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """The job that times a device: {device, dtypes} to a `DeviceReport`, as stored."""
    device = from_stored(payload["device"], Device)
    place = torch.device(device.id)
    if device.kind != "cuda":
        return to_stored(DeviceReport(device, rates(place, payload["dtypes"])))
    free, _ = torch.cuda.mem_get_info(place)
    measured = DeviceReport(
        device=device,
        rates=rates(place, payload["dtypes"]),
        bandwidth=copy_bandwidth(place),
        environment=card_environment.read(device),
        free_bytes=free,
        state=card_state.read(place),
    )
    return to_stored(measured)


def copy_bandwidth(
    device: torch.device, clock: Callable[[], float] = time.perf_counter, size: int = _COPY_BYTES
) -> float:
    """Bytes per second that a copy of `size` bytes within the device's memory reads and writes: the median of many."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _sustained(lambda: target.copy_(source), synchronizer(device), clock, _PLANS["cuda"])


def is_native(speed: MatmulSpeed, fp32: MatmulSpeed) -> bool:
    """Whether a dtype of this speed is computed in hardware, given fp32's on the same device."""
    return speed.combined >= NATIVE_FACTOR * fp32.combined


def _directions(
    dtype: torch.dtype, device: torch.device, wait: Callable[[], None], clock: Callable[[], float]
) -> tuple[float, float]:
    """(forward, backward) in FLOP/s: x @ w.T, and x's gradient g @ w, at the largest shape that is fast enough."""
    flops_per_s, slow = [0.0, 0.0], [False, False]
    plan = _PLANS[device.type]
    # From small to large: an emulated dtype must not hang in a large product.
    for m, k, n in plan.shapes:
        try:
            x, w, g = (torch.randn(size, device=device).to(dtype) for size in ((m, k), (n, k), (m, n)))
            for i, (a, b) in enumerate(((x, w.T), (g, w))):
                if slow[i]:
                    continue
                product = partial(torch.matmul, a, b)
                seconds = _fastest(product, wait, clock, wait_first=device.type == "cuda")
                slow[i] = seconds > _LARGER_BELOW_S
                if plan.sustained_s and m >= plan.large and seconds <= _REPEAT_BELOW_S:
                    seconds = _sustained(product, wait, clock, plan)
                flops_per_s[i] = 2 * m * k * n / seconds
        except torch.OutOfMemoryError:
            # A slice of a card, or one that others fill: smaller products say enough.
            if not all(flops_per_s):
                raise
            break
    return flops_per_s[0], flops_per_s[1]


def _sustained(run: Callable[[], Any], wait: Callable[[], None], clock: Callable[[], float], plan: _Plan) -> float:
    """Median seconds of a run, over `sustained_s` of them and three at least, after a warm-up without a count."""

    def timed() -> float:
        start = clock()
        run()
        wait()
        return clock() - start

    wait()
    begin = clock()
    while clock() - begin < plan.warm_up_s:
        timed()
    samples: list[float] = []
    while len(samples) < 3 or sum(samples) < plan.sustained_s:
        samples.append(timed())
    return median(samples)


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
