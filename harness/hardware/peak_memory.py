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
    libraries' own buffers: what the card's total has to hold). On a CPU: `resident`, and `current`, which is no peak
    but what is resident at the time.
    """

    def __init__(self, device: torch.device):
        self.device = device
        # Before this process touches the card, so that what others hold there is not counted as ours.
        self._before = _card_used(device) if device.type == "cuda" else None

    def reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with suppress(OSError):  # not Linux, or not allowed: the peak is then that since the start
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, proc(5)

    def read(self) -> dict[str, int]:
        if self.device.type != "cuda":
            return {"resident": peak_resident_bytes(), "current": psutil.Process().memory_info().rss}
        seen = {
            "allocated": torch.cuda.max_memory_allocated(self.device),
            "reserved": torch.cuda.max_memory_reserved(self.device),
        }
        used = _card_used(self.device)
        if used is not None and self._before is not None:
            seen["process"] = max(used - self._before, seen["reserved"])
        return seen


def _card_used(device: torch.device) -> int | None:
    """Bytes in use on the whole card, by NVML, which torch asks for the right card under CUDA_VISIBLE_DEVICES.

    NVML's count by process is no use in a container, which sees other process numbers than the driver.
    """
    try:
        return torch.cuda.device_memory_used(device)
    except Exception:  # pynvml's errors derive from it directly; allocated and reserved are exact without
        return None


def peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024
