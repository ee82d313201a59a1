"""Peak memory of this process, phase by phase."""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil
import torch


class PeakMemory:
    """Peaks since the last `reset`, in bytes.

    On CUDA: `allocated` (tensors), `reserved` (what the caching allocator took), `process` (with the context and the
    libraries' own buffers: what the card's total has to hold). On a CPU: `resident`, and `current`, which is what is
    resident at the time of reading, not a peak.
    """

    def __init__(self, device: torch.device):
        self.device = device
        # Read before this process touches the card, so that what others hold there is not counted as ours.
        self._before = _card_used(device) if device.type == "cuda" else None

    def reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with suppress(OSError):  # not Linux, or not allowed: the peak then counts from the process's start
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, proc(5)

    def read(self) -> dict[str, int]:
        if self.device.type != "cuda":
            return {"resident": peak_resident_bytes(), "current": psutil.Process().memory_info().rss}
        peaks = {
            "allocated": torch.cuda.max_memory_allocated(self.device),
            "reserved": torch.cuda.max_memory_reserved(self.device),
        }
        used = _card_used(self.device)
        if used is not None and self._before is not None:
            peaks["process"] = max(used - self._before, peaks["reserved"])
        return peaks


def _card_used(device: torch.device) -> int | None:
    """Bytes in use on the whole card, from NVML; torch finds the right card under CUDA_VISIBLE_DEVICES.

    NVML's count per process is useless in a container, whose process numbers differ from the driver's.
    """
    try:
        return torch.cuda.device_memory_used(device)
    except Exception:  # pynvml's errors derive from it directly; allocated and reserved do not need NVML
        return None


def peak_resident_bytes() -> int:
    """The most resident memory that this process has had, since PeakMemory.reset where the system allows one."""
    status = Path("/proc/self/status")
    if status.exists():
        line = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if line:
            return int(line[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
