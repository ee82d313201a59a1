"""What a card says of itself while it works: clock, temperature, power, and what holds its clock down (NVML)."""

from collections.abc import Callable
from typing import Any

import torch

from harness.records.measurement import CardState

# NVML's bits (nvml.h, nvmlClocksEventReasons). Idle clocks, applications' settings and the display hold nothing down.
_REASONS = {0x04: "power cap", 0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
HEAT = "heat"


def read(
    device: torch.device, cuda: Any = torch.cuda, reasons: Callable[[torch.device], int] | None = None
) -> CardState:
    """The state of the card now. `cuda` is torch.cuda, and `reasons` NVML's bits, or what a test puts in their place.

    torch.cuda asks NVML for the right card under CUDA_VISIBLE_DEVICES.
    """
    watts = _or_none(cuda.power_draw, device)
    bits = int(_or_none(reasons or _nvml_reasons, device) or 0)
    return CardState(
        sm_mhz=_or_none(cuda.clock_rate, device),
        celsius=_or_none(cuda.temperature, device),
        watts=None if watts is None else watts / 1000,
        throttle=tuple(dict.fromkeys(name for bit, name in _REASONS.items() if bits & bit)),
    )


def _nvml_reasons(device: torch.device) -> int:
    import pynvml

    handle = torch.cuda._get_pynvml_handler(device)
    # Its name since driver 535; older bindings have the other one.
    function = getattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    return (function or pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)(handle)


def _or_none(ask: Callable[[torch.device], float], device: torch.device) -> float | None:
    """What is asked, or None: in containers and MIG parts, and on cards without a sensor, NVML raises this and that."""
    try:
        return float(ask(device))
    except Exception:
        return None
