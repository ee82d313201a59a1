"""Where locks of devices lie, and what is no lock."""

import os
import pwd
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.info import Device

CPU = Device("cpu", "a CPU", 1)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places, in the order of preference; the temporary folder's is not made yet."""
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setattr(device_lock, "gettempdir", lambda: str(tmp_path))
    return tmp_path / "cache", tmp_path / "runtime", tmp_path / f"ttft-bench-{os.geteuid()}"


def lock_of(folder):
    with device_lock.hold(CPU):
        (path,) = folder.glob("*.lock")
    return path


def test_it_lies_in_the_users_cache(places):
    assert lock_of(places[0] / "locks").name.endswith("-cpu.lock")


def test_without_a_cache_it_lies_in_the_runtime_folder_and_then_in_one_of_the_users_own(places, monkeypatch):
    cache, runtime, own = places
    cache.write_text("a file is no folder")
    assert lock_of(runtime / "ttft-bench")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert lock_of(own)
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("trap", ["link", "file", "writable by others"])
def test_a_folder_that_somebody_else_may_have_made_is_not_used(places, monkeypatch, tmp_path, trap):
    cache, _, own = places
    cache.touch()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    if trap == "link":
        (tmp_path / "theirs").mkdir()
        own.symlink_to(tmp_path / "theirs")
    elif trap == "file":
        own.touch()
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(UserError, match="TTFT_BENCH_CACHE"), device_lock.hold(CPU):
        pass


@pytest.mark.parametrize(
    ("trap", "reason"), [("link", "a link"), ("folder", "Is a directory"), ("pipe", "not a regular file")]
)
def test_what_is_no_lock_is_named_and_left_alone(places, tmp_path, trap, reason):
    path, victim = lock_of(places[0] / "locks"), tmp_path / "victim"
    victim.write_text("precious")
    path.unlink()
    {"link": lambda: path.symlink_to(victim), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[trap]()
    with pytest.raises(UserError) as refused, device_lock.hold(CPU):
        pass
    assert str(path) in str(refused.value) and reason in str(refused.value)
    assert "make room" not in str(refused.value)
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_another_users_file_is_no_lock(places):
    path = lock_of(places[0] / "locks")
    os.chown(path, 12345, -1)
    with pytest.raises(UserError, match="another user's file"), device_lock.hold(CPU):
        pass


def test_a_user_without_a_name_or_a_home_has_locks(places, monkeypatch):
    """As in a container that runs under a number."""

    def unknown(*_):
        raise KeyError("uid not found")

    for name in ("TTFT_BENCH_CACHE", "XDG_CACHE_HOME", "HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert lock_of(places[1] / "ttft-bench")


def test_a_killed_process_holds_nothing(places):
    code = (
        "import os, signal\nfrom harness.hardware import device_lock\nfrom harness.hardware.info import Device\n"
        "with device_lock.hold(Device('cpu', 'a CPU', 1)): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert lock_of(places[0] / "locks")


def test_it_is_let_go_when_the_work_fails(places):
    with pytest.raises(ZeroDivisionError), device_lock.hold(CPU):
        raise ZeroDivisionError
    with device_lock.hold(CPU), pytest.raises(device_lock.Busy), device_lock.hold(CPU):
        pass
