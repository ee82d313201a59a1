"""The machine's own memory, or what the groups of this process may use of it. Knows no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Files:
    """Names of one version's files in a group's folder; `cache` is a line of memory.stat, `kills` of `events`."""

    limit: str
    used: str
    cache: str
    events: str
    kills: str = "oom_kill"


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control")
_V2 = _Files("memory.max", "memory.current", "inactive_file", "memory.events")


def total_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Memory that this process and its children may use: the machine's, or the least limit of their groups."""
    limits = [_number(folder / files.limit) for folder, files in _groups(cgroups, own)]
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit)])


def free_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Memory that can still be allocated before the system kills a process."""
    free = psutil.virtual_memory().available
    for folder, files in _groups(cgroups, own):
        limit, used = _number(folder / files.limit), _number(folder / files.used)
        if limit and used is not None:
            # The system drops cached files before it kills a process.
            free = min(free, limit - used + _lines(folder / "memory.stat").get(files.cache, 0))
    return free


def oom_kills(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """How many processes the system has killed in the groups of this process for want of memory."""
    return max(
        (_lines(folder / files.events).get(files.kills, 0) for folder, files in _groups(cgroups, own)), default=0
    )


def _groups(cgroups: Path, own: Path) -> Iterator[tuple[Path, _Files]]:
    """The folders of this process's group and of those around it, up to the root; a limit of each one holds.

    In a container the name may be the host's while the folders are the container's: what is not there has no limit.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    # hierarchy:controllers:group; version 2 is hierarchy 0 and names no controllers (cgroups(7)).
    roots: tuple[Path, ...]
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        parts = [part for part in group.split("/") if part not in ("", ".", "..")]
        if hierarchy == "0":
            roots, files = (cgroups, cgroups / "unified"), _V2
        elif "memory" in controllers.split(","):
            roots, files = (cgroups / "memory",), _V1
        else:
            continue
        for root in roots:
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:depth]), files


def _lines(path: Path) -> dict[str, int]:
    """The file's lines of a name and a number; empty where it cannot be read."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
