"""The limits of memory groups: trees of files as cgroups(7) has them, and a real process that the system kills."""

import psutil
import pytest

from harness.hardware import host_memory

MIB = 1 << 20
NAMES = {
    "v1": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
        "memory.oom_control",
        str(2**63 - 4096),
    ),
    "v2": ("memory.max", "memory.current", "inactive_file", "memory.events", "max"),
}


@pytest.fixture(params=NAMES)
def tree(request, tmp_path):
    """Makes a tree of groups, {path: limit in MiB or None}, in which this process is in the group `own`."""
    limit, used, cache, events, none = NAMES[request.param]
    root = tmp_path / "cgroup" / ("memory" if request.param == "v1" else "")

    def make(own, limits, used_mib=10, cached_mib=0, kills=0):
        line = f"0::{own}" if request.param == "v2" else f"9:cpu:/\n4:cpuset,memory:{own}\n0::/elsewhere"
        (tmp_path / "own").write_text(line + "\n")
        for path, mib in limits.items():
            folder = root / path.strip("/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / limit).write_text(f"{none if mib is None else mib * MIB}\n")
            (folder / used).write_text(f"{used_mib * MIB}\n")
            (folder / "memory.stat").write_text(f"anon 5\n{cache} {cached_mib * MIB}\n")
            (folder / events).write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")
        return tmp_path / "cgroup", tmp_path / "own"

    return make


def test_the_least_limit_from_the_own_group_up_to_the_root_holds(tree):
    assert (
        host_memory.total_bytes(*tree("/slurm/job_7/step_0", {"/slurm/job_7/step_0": 100, "/slurm/job_7": 200}))
        == 100 * MIB
    )
    assert (
        host_memory.total_bytes(*tree("/slurm/job_7/step_0", {"/slurm/job_7/step_0": None, "/slurm/job_7": 50}))
        == 50 * MIB
    )
    assert host_memory.total_bytes(*tree("/slurm/job_7/step_0", {"/": 40, "/slurm/job_7": 50})) == 40 * MIB


def test_other_groups_limits_do_not(tree):
    assert host_memory.total_bytes(*tree("/mine", {"/mine": None, "/other": 1})) == psutil.virtual_memory().total


def test_a_container_sees_its_own_group_as_the_root(tree):
    """By the host's name, or by one that leads out of what it sees."""
    assert host_memory.total_bytes(*tree("/docker/0123", {"/": 64})) == 64 * MIB
    assert host_memory.total_bytes(*tree("/../../outside", {"/": 32})) == 32 * MIB


def test_what_is_free_counts_cached_files(tree):
    """50 MiB of a limit of 100 are used, 20 of these by cached files: 70 can be had."""
    assert host_memory.free_bytes(*tree("/a", {"/a": 100, "/": None}, used_mib=50, cached_mib=20)) == 70 * MIB


def test_kills_for_want_of_memory_are_counted(tree):
    assert host_memory.oom_kills(*tree("/a/b", {"/a/b": 100, "/a": 100}, kills=0)) == 0
    assert host_memory.oom_kills(*tree("/a/b", {"/a/b": 100}, kills=2)) == 2


def test_without_groups_it_is_the_machines_memory(tmp_path):
    nowhere = tmp_path / "cgroup", tmp_path / "own"
    assert host_memory.total_bytes(*nowhere) == psutil.virtual_memory().total
    assert 0 < host_memory.free_bytes(*nowhere) <= psutil.virtual_memory().total
    assert host_memory.oom_kills(*nowhere) == 0
