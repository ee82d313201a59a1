"""What a card's numbers depend on besides the libraries: CUDA, cuDNN, Triton, the driver and the power limit."""

from importlib import metadata
from typing import Any

import torch

from harness.hardware import driver
from harness.hardware.info import Device


def read(device: Device, nvml: Any = None) -> dict[str, str]:
    """{"cuda": "13.0", "cudnn": "9.20.0", "triton": ..., "driver": ..., "power_limit_w": "70", "capability": "7.5"}.

    What does not answer is left out. Empty for a CPU. `nvml` is the module pynvml, or what a test puts in its place.
    """
    if device.kind != "cuda":
        return {}
    present = driver.look(nvml)
    values = {
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(torch.backends.cudnn.version()),
        "triton": _triton(),
        "driver": present.version if present else None,
        "power_limit_w": _power_limit(torch.device(device.id), nvml),
        "capability": device.capability,
    }
    return {name: value for name, value in values.items() if value}


def _cudnn(number: int | None) -> str | None:
    """cuDNN's version from its number: 92000 is 9.20.0, 8907 is 8.9.7."""
    if not number:
        return None
    thousand = 10_000 if number >= 90_000 else 1000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"


def _triton() -> str | None:
    for name in ("triton", "pytorch-triton"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _power_limit(device: torch.device, nvml: Any) -> str | None:
    """Watts at which the card holds its clock down: a T4 or an H100 may be set to less than its maker's."""
    try:
        if nvml is None:
            import pynvml

            nvml = pynvml
        return f"{nvml.nvmlDeviceGetEnforcedPowerLimit(torch.cuda._get_pynvml_handler(device)) / 1000:.0f}"
    except Exception:  # no NVML, or a MIG slice, which has no limit of its own
        return None
