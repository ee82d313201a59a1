"""What a process holds beyond its tensors: a fixed base, and the gaps that an allocator leaves between them."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.catalog.accelerators import CPU, CUDA

# What a card's allocator holds for logits, over their own bytes: blocks of that size come and go in fp32 and in 16
# bits, and fit into no other's gap. In published rows that give both, what was reserved for logits of every token is
# 1.4 to 1.9 times what was allocated.
_LOGITS_SPREAD = {CUDA: 1.5, CPU: 1.0}


@dataclass(frozen=True)
class MemoryPoint:
    """A measured process, in bytes: the persistent tensors (with logits) and the transient ones of its trace, and its
    peak. `fp32`: whether it computed in fp32."""

    model: str
    persistent: int
    transient: int
    peak: int
    fp32: bool = False


@dataclass(frozen=True)
class Allocator:
    """Fixed overhead of a process in bytes, and the fragmentation factor on transient tensors: in 16 bits, and in fp32,
    whose larger tensors leave larger gaps."""

    base_bytes: float
    fragmentation: float
    fragmentation_fp32: float

    def held(self, transient: float, fp32: bool) -> float:
        return transient * (self.fragmentation_fp32 if fp32 else self.fragmentation)

    def peak(self, process: MemoryPoint) -> float:
        return self.base_bytes + process.persistent + self.held(process.transient, process.fp32)


def held_logits(size: float, kind: str) -> float:
    """Bytes that the allocator of a device of `kind` holds for logits of `size` bytes."""
    return size * _LOGITS_SPREAD[kind]


def memory_left_out(kind: str, processes: Sequence[MemoryPoint]) -> list[tuple[MemoryPoint, Allocator]]:
    """Each process with what is fitted on the other models' ones."""
    fits = {m: fit_memory([p for p in processes if p.model != m], kind) for m in {p.model for p in processes}}
    return [(p, fits[p.model]) for p in processes]


def fit_memory(processes: Sequence[MemoryPoint], kind: str) -> Allocator:
    """The base and factors of peak = base + persistent + factor x transient that miss least relatively.

    Without two processes to fit on: nothing more than the tensors on a card, half a GiB of libraries on a CPU. With
    fewer than two in fp32, or in 16 bits, one factor for both.
    """
    import numpy as np

    # Too few for a fit: typical values.
    if len(processes) < 2:
        return Allocator(0.0, 1.1, 1.1) if kind == CUDA else Allocator(0.5 * 2**30, 1.3, 1.3)
    # One column per factor: fp32 apart from 16 bits where both have been measured.
    fp32 = np.array([p.fp32 for p in processes])
    groups = [~fp32, fp32] if min(fp32.sum(), (~fp32).sum()) > 1 else [np.ones(len(processes), bool)]
    peaks, transient = np.array([p.peak for p in processes], float), np.array([p.transient for p in processes])
    # Both sides over the peaks, so that every process counts alike; columns of norm 1, for bytes are large.
    columns = np.stack([np.ones(len(processes)), *(transient * group for group in groups)], 1) / peaks[:, None]
    remaining = 1 - np.array([p.persistent for p in processes]) / peaks
    norm = np.linalg.norm(columns, axis=0)
    norm[norm == 0] = 1  # nothing transient anywhere
    base, *factors = map(float, np.linalg.lstsq(columns / norm, remaining, rcond=None)[0] / norm)
    return Allocator(max(0.0, base), max(1.0, factors[0]), max(1.0, factors[-1]))
