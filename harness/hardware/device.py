"""The device that is measured: which one, its name, its memory, its dtypes, and how to wait for it."""

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from harness.errors import UserError
from harness.hardware import driver, host_memory
from harness.hardware.info import Device

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device(requested: str, cuda=torch.cuda, gpus: int = 1, look=driver.look) -> Device:
    """The device for "auto", "cpu", "cuda" or "cuda:1", the first of `gpus`. Raises UserError where one is missing,
    and where there is a card that torch cannot use: nobody who has one means the CPU.

    `cuda` is torch.cuda, and `look` driver.look, or what a test puts in their place.
    """
    if requested != "cpu" and not cuda.is_available() and not driver.hidden() and (present := look()):
        raise UserError(driver.unusable(present, torch.__version__, torch.version.cuda))
    if requested == "auto":
        requested = "cuda" if cuda.is_available() else "cpu"
    if requested == "cpu":
        threads = torch.get_num_threads()
        return Device("cpu", _name_of_several(gpus, cpu_name()), host_memory.total_bytes(), threads=threads)
    # Every card that is needed must be there.
    if not cuda.is_available():
        raise UserError(f"--device {requested}: {_why_no_cuda()}; use --device cpu")
    count, index = cuda.device_count(), int(requested.partition(":")[2] or 0)
    if index >= count:
        raise UserError(f"--device {requested}: there are {count} CUDA devices, numbered from 0")
    if index + gpus > count:
        raise UserError(f"--gpus {gpus}: from {requested} on there are {count - index} CUDA devices")
    used = range(index, index + gpus)
    properties = [cuda.get_device_properties(i) for i in range(count)]
    for i in used:
        card = properties[i]
        capability, compiled = f"{card.major}.{card.minor}", cuda.get_arch_list()
        if problem := driver.missing_kernels(card.name, capability, compiled, torch.__version__):
            raise UserError(problem)
    first = properties[index]
    return Device(
        id=f"cuda:{index}",
        name=_name_of_several(gpus, first.name),
        total_bytes=first.total_memory,
        uuid=str(getattr(first, "uuid", index)),
        capability=f"{first.major}.{first.minor}",
        others=tuple(f"cuda:{i} {properties[i].name}" for i in range(count) if i not in used),
        other_uuids=tuple(str(getattr(properties[i], "uuid", i)) for i in range(count) if i not in used),
        partners=tuple(str(getattr(properties[i], "uuid", i)) for i in used[1:]),
        threads=gpus,
    )


def _name_of_several(gpus: int, name: str) -> str:
    return name if gpus == 1 else f"{gpus} x {name}"


def synchronizer(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has finished all its work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def cpu_name() -> str:
    """The processor's model and torch's threads: "AMD EPYC 7763 64-Core Processor, 2 threads"."""
    cpuinfo = Path("/proc/cpuinfo")
    model = ""
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if driver.hidden():
        return "CUDA_VISIBLE_DEVICES hides every device"
    return "torch finds no CUDA device (is the driver loaded?)"
