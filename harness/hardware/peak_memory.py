"""Peak memory of this process, phase by phase."""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from harness.records.measurement import CONTEXT_BYTES


class PeakMemory:
    """Peaks since the last `reset`, in bytes.

    On CUDA: `allocated` (tensors), `reserved` (what the caching allocator took), `process` (with the context and the
    libraries' own buffers: what the card's total has to hold). On a CPU: `resident`, and `current`, which is what is
    resident at the time of reading, not a peak.

    `process` is how much more of the card is in use than before, by NVML. Where that does not answer, and in a MIG
    slice (`is_slice`), of which it gives the whole card's, CUDA's own count stands in; `notes` then says so.
    """

    def __init__(self, device: torch.device, is_slice: bool = False):
        self.device = device
        # Read before this process touches the card, so that what others hold there is not counted as ours.
        self._before = _card_used(device) if device.type == "cuda" and not is_slice else None
        self._by_cuda = device.type == "cuda" and self._before is None
        self._others: int | None = None  # bytes that others held, by CUDA's count

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence where `process` was not counted by NVML."""
        if not self._by_cuda:
            return ()
        return (
            "peak memory by CUDA's own count, for NVML gives none of this device: what others take meanwhile is in it",
        )

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
        process = self._used_by_cuda() if self._by_cuda else self._used_by_nvml()
        if process is not None:
            peaks["process"] = max(process, peaks["reserved"])
        return peaks

    def _used_by_nvml(self) -> int | None:
        used = _card_used(self.device)
        return None if used is None or self._before is None else used - self._before

    def _used_by_cuda(self) -> int:
        free, total = torch.cuda.mem_get_info(self.device)
        if self._others is None:
            # The first reading needs a context, which it counts; what is more than that and our tensors is of others.
            own = CONTEXT_BYTES + torch.cuda.memory_reserved(self.device)
            self._others = max(0, total - free - own)
        return total - free - self._others


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
