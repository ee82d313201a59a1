"""The card's driver: what it says of itself, and whether this torch can run on it. Knows no torch."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Builds of torch by CUDA version: the oldest driver that each runs on (CUDA's compatibility notes), newest first.
_WHEELS = (("cu130", 580), ("cu128", 570), ("cu126", 525))
_FIRST_BLACKWELL = "cu128"  # builds from CUDA 12.8 on have kernels for compute capability 10 and 12
_LAST_OLD = "cu126"  # from CUDA 12.8 on, builds leave out capabilities below 7.5
_OLDER_TORCH = '"torch<2.11"'  # whose builds for CUDA 12.6 have them


@dataclass(frozen=True)
class Driver:
    """Its version, None where it does not say, and the names of its cards, none where it does not say."""

    version: str | None
    cards: tuple[str, ...]

    @property
    def wheel(self) -> str | None:
        """The newest build of torch that runs on this driver; None where it is too old for all, or not known."""
        major = re.match(r"[0-9]+", self.version or "")
        return next((name for name, oldest in _WHEELS if major and int(major[0]) >= oldest), None)

    def __str__(self) -> str:
        named = self.cards[0] if self.cards else "a CUDA card"
        return f"{named}, driver {self.version or 'unknown'}"


def look(nvml: Any = None, device_file: Path = Path("/dev/nvidia0")) -> Driver | None:
    """The driver of this machine's cards, by NVML, else by its device file; None where there is no card.

    `nvml` is the module pynvml, or what a test puts in its place.
    """
    try:
        nvml = nvml or _pynvml()
        nvml.nvmlInit()
    except Exception:  # pynvml's errors derive from it directly: no driver, or an old one
        return Driver(_proc_version(), ()) if device_file.exists() else None
    try:
        count = nvml.nvmlDeviceGetCount()
        names = tuple(_text(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count))
        return Driver(_text(nvml.nvmlSystemGetDriverVersion()), names) if count else None
    except Exception:
        return Driver(_proc_version(), ()) if device_file.exists() else None
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


def hidden() -> bool:
    """Whether the user hides every card from CUDA."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def unusable(driver: Driver, torch_version: str, built_for: str | None) -> str:
    """Why torch sees none of the driver's cards, with the remedy; `built_for` is torch's CUDA version."""
    torch = f"torch {torch_version} is built " + (f"for CUDA {built_for}" if built_for else "without CUDA")
    return f"there is {driver}, but torch cannot use it: {torch}; {_remedy(driver, built_for)}; or give --device cpu"


def _remedy(driver: Driver, built_for: str | None) -> str:
    if driver.version is None:
        return "its driver does not answer: see whether nvidia-smi works; a container needs the NVIDIA runtime"
    # The driver that this torch needs; builds that are not listed are older than those that are.
    built = _numbers(built_for) if built_for else None
    oldest = next((least for name, least in _WHEELS if built and _cuda(name) <= built), _WHEELS[-1][1])
    if driver.wheel is None:
        return f"update the driver to {oldest} or newer"
    if built is None or built > _cuda(driver.wheel):
        update = f", or update the driver to {oldest} or newer" if built else ""
        return f"install one that runs on this driver: {install(driver.wheel)}{update}"
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return f"CUDA_VISIBLE_DEVICES is {visible}: name a card that is there, or unset it"
    return "the driver is new enough: see whether nvidia-smi works, and restart the machine or the container"


def install(wheel: str, torch: str = "torch") -> str:
    """The command that installs a build of torch."""
    return f"pip install --force-reinstall {torch} --index-url https://download.pytorch.org/whl/{wheel}"


def missing_kernels(name: str, capability: str, compiled: Iterable[str], torch_version: str) -> str | None:
    """Why torch has no kernels for a card of this compute capability, with the remedy; None where it has.

    `compiled` is torch.cuda.get_arch_list(): "sm_86" runs on 8.6 and 8.9, "compute_90" is compiled for any newer card,
    "sm_90a" runs on 9.0 alone. Where that says nothing, the probe will.
    """
    card = _numbers(capability)
    words = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", word) for word in compiled]
    built = [(word[1], (int(word[2]), int(word[3])), word[4]) for word in words if word]
    if not built or any(_runs_on(card, *architecture) for architecture in built):
        return None
    problem = f"{name} (compute capability {capability}): torch {torch_version} has no kernels for it"
    if card < (5, 0):
        return f"{problem}, and no current one has; choose another card, or --device cpu"
    wheel = _FIRST_BLACKWELL if card >= (10, 0) else _LAST_OLD
    command = install(wheel, "torch" if wheel == _FIRST_BLACKWELL else _OLDER_TORCH)
    return f"{problem}; a build for CUDA {wheel[2:4]}.{wheel[4:]} has: {command}; or give --device cpu"


def _runs_on(card: tuple[int, int], kind: str, built: tuple[int, int], only: str) -> bool:
    """Whether code of `kind` (sm or compute) that is built for a capability runs on `card`; `only` is a, f or empty."""
    if kind == "compute" and not only:
        return built <= card
    return built == card if only == "a" else built[0] == card[0] and built[1] <= card[1]


def _numbers(version: str) -> tuple[int, int]:
    major, minor = [*re.findall(r"[0-9]+", version), "0", "0"][:2]
    return int(major), int(minor)


def _cuda(wheel: str) -> tuple[int, int]:
    return int(wheel[2:4]), int(wheel[4:])


def _pynvml() -> Any:
    import pynvml

    return pynvml


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _proc_version() -> str | None:
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        version = re.search(r"Kernel Module\D*([0-9]+\.[0-9.]+)", text)
        return version[1] if version else None
    return None
