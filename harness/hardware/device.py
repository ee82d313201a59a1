"""The device that is measured: which one, what it is called, how much it holds, how to wait for it."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.errors import UserError
from harness.hardware import host_memory


@dataclass(frozen=True)
class Device:
    """`name` identifies the hardware in records and in the results folder's path: "Tesla T4", or CPU and its cores."""

    id: str  # cpu, cuda:0
    name: str
    total_bytes: int
    uuid: str = "cpu"
    capability: str | None = None
    others: tuple[str, ...] = ()  # further CUDA devices, which this sweep leaves idle
    partners: tuple[str, ...] = ()  # the uuids of those that share its steps


def choose(asked: str, cuda=torch.cuda, gpus: int = 1) -> Device:
    """The device for "auto", "cpu", "cuda" or "cuda:1", the first of `gpus`. Raises UserError where one is missing."""
    if asked == "auto":
        asked = "cuda" if cuda.is_available() else "cpu"
    if asked == "cpu":
        return Device("cpu", _several(gpus, cpu_name()), host_memory.total_bytes())
    index = asked.partition(":")[2]
    if not cuda.is_available():
        raise UserError(f"--device {asked}: {_why_no_cuda()}; use --device cpu")
    count, number = cuda.device_count(), int(index or 0)
    if number >= count:
        raise UserError(f"--device {asked}: there are {count} CUDA devices, numbered from 0")
    if number + gpus > count:
        raise UserError(f"--gpus {gpus}: from {asked} on there are {count - number} CUDA devices")
    used = range(number, number + gpus)
    properties = cuda.get_device_properties(number)
    return Device(
        f"cuda:{number}",
        _several(gpus, properties.name),
        properties.total_memory,
        str(getattr(properties, "uuid", number)),
        f"{properties.major}.{properties.minor}",
        tuple(f"cuda:{i} {cuda.get_device_properties(i).name}" for i in range(count) if i not in used),
        tuple(str(getattr(cuda.get_device_properties(i), "uuid", i)) for i in used[1:]),
    )


def _several(gpus: int, name: str) -> str:
    return name if gpus == 1 else f"{gpus} x {name}"


def synchronizer(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has done all that it was given."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = ""
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device"
    return "torch finds no CUDA device (is the driver loaded?)"


TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
