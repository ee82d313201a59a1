import sys
import time

import psutil
import pytest

from harness.records.stored import to_stored
from harness.workers.process import run_worker

JOB = {"cell": {"device": "cpu"}}


def _run(tmp_path, code, timeout_s=20.0, **more):
    return run_worker(JOB, tmp_path / "log", timeout_s, command=(sys.executable, "-c", code), **more)


def test_a_worker_that_hangs_is_ended_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    start = time.monotonic()
    found = _run(tmp_path, code, timeout_s=2.0)
    assert found.status == "timeout"
    assert time.monotonic() - start < 15
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5  # it would sleep for 60; the system takes a moment to end what was killed
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(child)


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_machine_that_runs_out_of_memory_ends_the_worker(tmp_path):
    found = _run(tmp_path, "import time; time.sleep(60)", free_bytes=lambda: 0)
    assert found.status == "oom"
    assert "memory ran out" in found.reason


def test_a_worker_that_cannot_start(tmp_path):
    found = _run(tmp_path, "import no_such_module")
    assert found.status == "crashed"
    assert "no_such_module" in found.reason


def test_a_result_counts_even_if_the_end_is_untidy(tmp_path):
    code = (
        'import os, time; print(\'{"event": "result", "status": "ok", "reason": "", "load_s": 1}\', flush=True);'
        "os._exit(3)"
    )
    found = _run(tmp_path, code)
    assert (found.status, found.seen) == ("ok", {"load_s": 1})


def test_events_reach_the_watch(tmp_path):
    seen = []
    _run(tmp_path, 'print(\'{"event": "phase", "phase": "load"}\', flush=True)', on_event=seen.append)
    assert {"phase": "load"} in seen


@pytest.mark.parametrize("module", ["harness.measure.worker"])
def test_a_worker_ends_when_its_sweep_is_gone(module, tmp_path):
    """The real worker, its input closed: it must not go on alone."""
    import json
    import subprocess

    from conftest import cell

    said = json.dumps({"cell": to_stored(cell(context=64)), "sample_seconds": 600, "seed": 0}).encode() + b"\n"
    process = subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    process.stdin.write(said)
    process.stdin.flush()
    assert b"import" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(30) == 1
    process.stdout.close()
