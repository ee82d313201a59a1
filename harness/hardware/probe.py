"""What the device really does in each dtype: small matrix products in the shapes of forward and of backward.

A library may say that a dtype is supported and emulate it (`torch.cuda.is_bf16_supported()` on a T4), and on a CPU
without 16-bit instructions the product of the backward can be a hundred times slower than that of the forward. So
each is timed. A 16-bit dtype is native where it beats fp32 clearly; fp32 always is.
"""

import time
from collections.abc import Callable, Iterable

import torch

from harness.errors import UserError
from harness.hardware.device import TORCH_DTYPES, synchronizer
from harness.records.measurement import MatmulSpeed

NATIVE_FACTOR = 1.2  # times fp32's rate; hardware 16-bit is 2 to 15 times as fast, emulation at best on a par
_SHAPES = {"cpu": ((64, 256, 256), (128, 896, 896), (256, 896, 4864)), "cuda": ((512, 512, 512), (4096, 4096, 4096))}
_LARGER_BELOW_S = 0.05  # a larger shape is tried only after one that was quicker
_REPEAT_BELOW_S = 0.25
_REPEATS = 5


def rates(
    device: torch.device, names: Iterable[str], clock: Callable[[], float] = time.perf_counter
) -> dict[str, MatmulSpeed]:
    """The rate of each dtype in `names` and of fp32; one that the device refuses is left out."""
    wait = synchronizer(device)
    found = {}
    for name in dict.fromkeys(("fp32", *names)):
        try:
            found[name] = _directions(TORCH_DTYPES[name], device, wait, clock)
        except RuntimeError as problem:
            # "not implemented for 'Half'": the device has no such product. But without fp32 it has none at all.
            if name == "fp32" or isinstance(problem, torch.OutOfMemoryError):
                reason = str(problem).strip().splitlines()[0]
                raise UserError(f"{device} cannot multiply matrices: {reason}; try another with --device") from None
    fp32 = MatmulSpeed(*found["fp32"], native=True)
    out = {"fp32": fp32}
    for name, (forward, backward) in found.items():
        rate = MatmulSpeed(forward, backward, native=True)
        out[name] = MatmulSpeed(forward, backward, native=is_native(rate, fp32) if name != "fp32" else True)
    return out


def is_native(rate: MatmulSpeed, fp32: MatmulSpeed) -> bool:
    return rate.combined >= NATIVE_FACTOR * fp32.combined


def _directions(
    dtype: torch.dtype, device: torch.device, wait: Callable[[], None], clock: Callable[[], float]
) -> tuple[float, float]:
    """(forward, backward) in FLOP/s: x @ w.T, and the gradient of x, g @ w, at the largest shape that stays short."""
    forward, backward, on_card = 0.0, 0.0, device.type == "cuda"
    slow = {"forward": False, "backward": False}
    for m, k, n in _SHAPES[device.type]:
        x = torch.randn(m, k).to(device, dtype)
        w = torch.randn(n, k).to(device, dtype)
        g = torch.randn(m, n).to(device, dtype)
        if not slow["forward"]:
            seconds = _fastest(lambda x=x, w=w: x @ w.T, wait, clock, on_card)
            forward, slow["forward"] = 2 * m * k * n / seconds, seconds > _LARGER_BELOW_S
        if not slow["backward"]:
            seconds = _fastest(lambda g=g, w=w: g @ w, wait, clock, on_card)
            backward, slow["backward"] = 2 * m * k * n / seconds, seconds > _LARGER_BELOW_S
    return forward, backward


def _fastest(
    product: Callable[[], torch.Tensor], wait: Callable[[], None], clock: Callable[[], float], wait_first: bool
) -> float:
    """Seconds of the fastest of a few runs, the first left out; a slow product runs once only."""
    if wait_first:  # the first call on a card loads libraries and kernels
        product()
        wait()
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
