"""The machine's own memory, or what its container may use of it. Knows no torch."""

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def total_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory that processes here may use: the machine's, or its container's limit."""
    limit = _limit(cgroup)
    total = psutil.virtual_memory().total
    return min(total, limit) if limit else total


def free_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory that can still be allocated before the system kills a process."""
    # cgroup v2 first, then v1; without a limit, the machine's own count.
    free, limit = psutil.virtual_memory().available, _limit(cgroup)
    used = _number(cgroup / "memory.current") or _number(cgroup / "memory/memory.usage_in_bytes")
    if not limit or used is None:
        return free
    return min(free, limit - used + _file_cache(cgroup))


def _limit(cgroup: Path) -> int | None:
    return _number(cgroup / "memory.max") or _number(cgroup / "memory/memory.limit_in_bytes")


def _file_cache(cgroup: Path) -> int:
    """Bytes of cached files, which the system drops before it kills a process."""
    for name in ("memory.stat", "memory/memory.stat"):
        try:
            stat = dict(line.split()[:2] for line in (cgroup / name).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return int(stat.get("inactive_file", 0))
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
