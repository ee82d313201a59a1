"""How much of the CPU others use: what is busy on the machine less what this program's own processes use.

Threads of a step wait for the slowest one, so a core that others share slows all of them; with as many threads as
cores two programs can slow each other by more than ten times. Knows no torch.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from harness.records.measurement import CROWDING

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # guests' time is in user already


@dataclass(frozen=True)
class CpuLoad:
    """Cores, on average: those that `others` used, and of these `stolen`, which a hypervisor gave to other machines."""

    others: float
    stolen: float

    def taken_from(self, threads: int) -> float:
        """Cores that others took from `threads` of this program's: they use the cores that are left to them first."""
        return max(0.0, self.others - max(0, cores() - threads))

    def crowds(self, threads: int) -> bool:
        """Whether others took so much that seconds measured meanwhile say little."""
        return self.taken_from(threads) > CROWDING

    def __str__(self) -> str:
        return f"{self.others:.1f} of {cores()} cores"


class CpuMeter:
    """The load since it was made or last started. `busy`, `own`, `clock` and `sleep` are seams for tests.

    `busy` returns seconds of CPU time that the machine was busy and that were stolen, `own` those of this program.
    """

    def __init__(
        self,
        busy: Callable[[], tuple[float, float]] | None = None,
        own: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._busy, self._own = busy or busy_seconds, own or own_seconds
        self.clock, self.sleep = clock, sleep
        self.start()

    def start(self) -> None:
        """What was before does not count."""
        self._from = self._now()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.clock() - self._from[0]

    def read(self) -> CpuLoad:
        """The load since the start."""
        seconds, busy, stolen, own = (now - then for now, then in zip(self._now(), self._from, strict=True))
        if seconds <= 0:
            return CpuLoad(0.0, 0.0)
        return CpuLoad(max(0.0, busy - own) / seconds, max(0.0, stolen) / seconds)

    def over(self, seconds: float) -> CpuLoad:
        """The load of the next `seconds`."""
        self.start()
        self.sleep(seconds)
        return self.read()

    def _now(self) -> tuple[float, float, float, float]:
        return self.clock(), *self._busy(), self._own()


def cores() -> int:
    """Cores that this process may use; two hyperthreads of one core count once, for each slows the other."""
    usable = len(_usable()) or os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def busy_seconds() -> tuple[float, float]:
    """CPU time in seconds that the cores of this process were busy since the machine started, and were stolen."""
    by_core, usable = psutil.cpu_times(percpu=True), _usable()
    # In some containers cores are numbered anew.
    if usable and max(usable) < len(by_core):
        by_core = [by_core[core] for core in usable]
    busy = sum(getattr(times, name, 0.0) for times in by_core for name in _BUSY)
    return busy, sum(getattr(times, "steal", 0.0) for times in by_core)


def own_seconds(root: int | None = None) -> float:
    """CPU time in seconds of process `root` (by default this one) and of all that it started, ended ones included."""
    total = 0.0
    with suppress(psutil.Error):
        parent = psutil.Process(root)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile
                # User and system; the same of children that have ended and were waited for.
                total += sum(process.cpu_times()[:4])
    return total


def _usable() -> set[int]:
    """Numbers of the cores that this process may use; empty where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
