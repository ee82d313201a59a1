import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from helpers.records import cell

from harness.errors import UserError
from harness.hardware import host_memory
from harness.records.stored import to_stored
from harness.workers.local import AskFailed, LocalExecutor, RunLimits
from harness.workers.look import find, reserve
from harness.workers.process import SERVE, rank_environments
from harness.workers.serve import LIFELINE, job_named

FRESH_PROCESSES = True


def _run(tmp_path, code, timeout_s=20.0, on_event=lambda event: None, **seams):
    limits = RunLimits(log=tmp_path / "log", timeout_s=timeout_s, guard_memory=True)
    return LocalExecutor((sys.executable, "-c", code), **seams).run("job", {}, limits, on_event)


def test_a_worker_that_hangs_is_ended_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    start = time.monotonic()
    outcome = _run(tmp_path, code, timeout_s=2.0)
    assert outcome.status == "timeout"
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
    outcome = _run(tmp_path, "import time; time.sleep(60)", free_bytes=lambda: 0)
    assert outcome.status == "oom"
    assert "memory ran out" in outcome.reason


def test_a_worker_that_cannot_start(tmp_path):
    outcome = _run(tmp_path, "import no_such_module")
    assert outcome.status == "crashed"
    assert "no_such_module" in outcome.reason


def test_a_result_counts_even_if_the_end_is_untidy(tmp_path):
    code = 'import os, time; print(\'{"event": "result", "result": {"load_s": 1}}\', flush=True);os._exit(3)'
    outcome = _run(tmp_path, code)
    assert (outcome.status, outcome.result) == ("ok", {"load_s": 1})


def test_events_reach_the_watch(tmp_path):
    seen = []
    _run(tmp_path, 'print(\'{"event": "phase", "phase": "load"}\', flush=True)', on_event=seen.append)
    assert {"event": "phase", "phase": "load"} in seen


def test_what_the_user_must_mend_is_raised_here(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        _run(tmp_path, 'print(\'{"event": "refused", "message": "no such thing"}\', flush=True)')


def test_one_process_answers_until_it_is_closed_and_its_death_is_told():
    """It counts what it was asked; after the third question it dies."""
    code = (
        "import json, sys\n"
        "for n, line in enumerate(sys.stdin): "
        "print(json.dumps({'event': 'result', 'result': 1 / (3 - n)}), flush=True)"
    )
    with LocalExecutor((sys.executable, "-c", code)) as executor:
        assert [executor.ask("job", {}) for _ in range(3)] == [1 / 3, 1 / 2, 1]
        with pytest.raises(AskFailed, match="ZeroDivisionError"):
            executor.ask("job", {})
        assert executor.ask("job", {}) == 1 / 3  # another one was started


def test_the_first_of_several_processes_speaks_and_the_death_of_another_ends_them(tmp_path):
    code = (
        "import json, os, sys, time\n"
        "rank, world = os.environ['RANK'], os.environ['WORLD_SIZE']\n"
        "if json.loads(sys.stdin.readline())['payload'] == 'die' and rank == '1': raise RuntimeError('lost its card')\n"
        "print(json.dumps({'event': 'result', 'result': [rank, world]}), flush=True) if rank == '1' or "
        "not os.path.exists('wait') else time.sleep(60)"
    )
    executor, limits = LocalExecutor((sys.executable, "-c", code)), RunLimits(log=tmp_path / "log")
    assert executor.run("job", "", limits, processes=2).result == ["0", "2"]
    Path("wait").touch()
    outcome = executor.run("job", "die", limits, processes=2)
    assert outcome.status == "crashed" and "lost its card" in outcome.reason


@pytest.mark.parametrize("first", ["time.sleep(60)", "time.sleep(1); raise RuntimeError('Connection closed by peer')"])
def test_what_another_process_says_of_its_failure_is_the_outcome(tmp_path, first):
    """The second process is out of memory and says so; the first one waits for it until it is killed, or dies of it."""
    told = {"event": "result", "result": {"status": "oom", "reason": "its card is full"}}
    code = (
        "import json, os, sys, time\n"
        "sys.stdin.readline()\n"
        f"if os.environ['RANK'] == '1': print({json.dumps(told)!r}, flush=True); sys.exit(sys.stdin.read())\n"
        f"{first}"
    )
    executor, limits = LocalExecutor((sys.executable, "-c", code)), RunLimits(log=tmp_path / "log", timeout_s=30)
    assert executor.run("job", "", limits, processes=2).result == told["result"]


def test_the_events_of_the_other_processes_are_read(tmp_path):
    """More than a pipe holds: the second process would stop in the middle, and the first wait for its file."""
    code = (
        "import json, os, sys, time\n"
        "sys.stdin.readline()\n"
        "if os.environ['RANK'] == '1':\n"
        "    for _ in range(5000): print(json.dumps({'event': 'step', 'arm': 'n' * 40}), flush=True)\n"
        f"    open({str(tmp_path / 'done')!r}, 'w')\n"
        "    sys.exit(sys.stdin.read())\n"
        f"while not os.path.exists({str(tmp_path / 'done')!r}): time.sleep(0.05)\n"
        "print(json.dumps({'event': 'result', 'result': 1}), flush=True)"
    )
    executor, limits = LocalExecutor((sys.executable, "-c", code)), RunLimits(log=tmp_path / "log", timeout_s=30)
    assert executor.run("job", "", limits, processes=2).result == 1


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        # An error in a destructor of autograd's thread: nothing raises, C++ ends the process and shows its stack.
        ("print(\"terminate called after throwing an instance of 'c10::AcceleratorError'\\n  what():  CUDA error: "
         "unspecified launch failure\\nException raised from c10_cuda_check\\nframe #0: xid\", file=sys.stderr, "
         "flush=True); os.abort()", "crashed", "ended by SIGABRT: the card was lost (CUDA error: unspecified launch "),
        ("print('  what():  CUDA out of memory', file=sys.stderr, flush=True); os.abort()", "oom",
         "ended by SIGABRT: CUDA out of memory"),
        # bitsandbytes prints and exits.
        ("print('Error out of memory at line 380 in file ops.cu', file=sys.stderr, flush=True); os._exit(1)", "oom",
         "Error out of memory at line 380 in file ops.cu; see log"),
        ("print('Error an illegal memory access was encountered at line 90', file=sys.stderr, flush=True); os._exit(1)",
         "crashed", "the card was lost (Error an illegal memory access"),
        ("os.abort()", "crashed", "ended by SIGABRT"),
        ("print('Error out of memory, trying less', file=sys.stderr, flush=True); raise ValueError('no such file')",
         "crashed", "ValueError: no such file; see log"),
    ],
)  # fmt: skip
def test_what_a_process_said_before_it_was_ended(tmp_path, code, status, reason):
    executor = LocalExecutor((sys.executable, "-c", f"import os, sys; sys.stdin.readline(); {code}"))
    outcome = executor.run("job", "", RunLimits(log=tmp_path / "log", timeout_s=30))
    assert outcome.status == status and outcome.reason.startswith(reason)
    assert status != "crashed" or "card was lost" not in reason or "--retry" in outcome.reason


@pytest.mark.parametrize("chosen", [None, "FASTEST_FIRST"])
def test_cards_are_numbered_alike_here_and_in_children(chosen, tmp_path, monkeypatch):
    """In a fresh process, before torch is imported; a user's own order is kept in both."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if chosen:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", chosen)
    child = (
        "import json, os; input(); print(json.dumps({'event': 'result', 'result': os.environ['CUDA_DEVICE_ORDER']}))"
    )
    parent = (
        "import harness, os, sys\n"
        "assert 'torch' not in sys.modules\n"
        "from harness.workers.local import LocalExecutor\n"
        f"with LocalExecutor((sys.executable, '-c', {child!r})) as executor:\n"
        "    print(os.environ['CUDA_DEVICE_ORDER'], executor.ask('job', {}))"
    )
    root = str(Path(__file__).parents[1])
    seen = subprocess.run([sys.executable, "-c", parent], env={**os.environ, "PYTHONPATH": root}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert seen.stdout.split() == [chosen or "PCI_BUS_ID"] * 2


def test_processes_on_one_machine_talk_over_the_loopback_alone(monkeypatch):
    """In a container whose host name does not resolve other interfaces hang; and nobody else may connect."""
    alone, (first, second) = rank_environments(1, "folder"), rank_environments(2, "folder")
    assert alone == [{}]
    name = first["GLOO_SOCKET_IFNAME"]
    assert "127.0.0.1" in [address.address for address in psutil.net_if_addrs()[name]]
    assert first["NCCL_SOCKET_IFNAME"] == f"={name}"
    assert {key: value for key, value in second.items() if key not in ("RANK", "LOCAL_RANK")} == {
        key: value for key, value in first.items() if key not in ("RANK", "LOCAL_RANK")
    }
    monkeypatch.setattr(psutil, "net_if_addrs", dict)  # not allowed to look
    assert rank_environments(2, "folder")[0]["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_device_is_looked_at_in_one_process_of_its_own():
    """The real one: this process learns what the device is, and torch is imported once."""
    with LocalExecutor() as executor:
        with reserve(executor, "cpu") as report:
            assert report.device.kind == "cpu" and report.rates["fp32"].native and report.rates["fp32"].forward > 1e6
            assert len(psutil.Process().children()) == 1
        with pytest.raises(UserError, match="--device cuda:99"):
            find(executor, "cuda:99")


def test_a_worker_ends_when_its_sweep_is_gone():
    """The real worker, its input closed: it must not go on alone."""
    payload = {"cell": to_stored(cell(context=64)), "sample_seconds": 600, "seed": 0}
    line = json.dumps({"job": "harness.measure.worker:measure_cell", "payload": payload}).encode() + b"\n"
    process = subprocess.Popen(SERVE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(line)
    process.stdin.flush()
    assert b"load" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(30) == 1
    process.stdout.close()


PARENT = """
import sys; from pathlib import Path
from harness.workers.local import LocalExecutor, RunLimits
worker = '''
import ctypes, os, sys
from harness.workers import serve
def hold(payload, emit):
    emit("phase", pid=os.getpid())
    ctypes.PyDLL(None).sleep(60)  # unlike CDLL it keeps the GIL
serve.job_named = lambda name: hold
serve.main()
'''
LocalExecutor((sys.executable, "-c", worker)).run(
    "hold", {}, RunLimits(log=Path(sys.argv[1])), lambda event: print(event.get("pid", ""), flush=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker notices when it lets go of the GIL")
def test_a_worker_in_c_code_that_holds_the_gil_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE)
    worker = int(parent.stdout.readline())
    assert _alive(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20  # it would sleep for 60
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is the input alone")
def test_a_worker_whose_parent_was_killed_before_it_began_to_watch_ends():
    """The parent's end of the pipe is closed already; the input is still open."""
    lifeline, parent = os.pipe()
    os.close(parent)
    environment = {**os.environ, LIFELINE: str(lifeline)}
    process = subprocess.Popen(SERVE, stdin=subprocess.PIPE, pass_fds=(lifeline,), env=environment)
    os.close(lifeline)
    assert process.wait(30) == 1
    process.stdin.close()


def test_a_worker_outlives_the_thread_that_started_it():
    """As those that trace do: their threads end when no trace is left, and the next traces go to the same processes."""
    code = (
        'import os, sys\nfor line in sys.stdin: print(\'{"event": "result", "result": %d}\' % os.getpid(), flush=True)'
    )
    pids = []
    with LocalExecutor(
        (sys.executable, "-c", f"from harness.workers import serve; serve._end_with_parent()\n{code}")
    ) as it:
        for _ in range(2):
            thread = threading.Thread(target=lambda: pids.append(it.ask("job", {})))
            thread.start()
            thread.join()
    assert pids[0] == pids[1]


def test_modules_of_the_current_folder_are_not_imported():
    """A downloaded folder may have a json.py."""
    Path("json.py").write_text("raise SystemExit('taken from the current folder')")
    with LocalExecutor() as executor, pytest.raises(UserError, match="No module named"):
        executor.ask("harness.none:none", {})


def test_jobs_are_functions_of_this_program():
    with pytest.raises(ValueError, match="no job"):
        job_named("os:system")


@pytest.mark.parametrize(("counted", "status"), [(1, "oom"), (0, "killed")])
def test_a_kill_that_the_memory_group_counts_is_out_of_memory(tmp_path, monkeypatch, counted, status):
    """The process is killed before anybody saw it grow."""
    counts = iter((3, 3 + counted))
    monkeypatch.setattr(host_memory, "oom_kills", lambda: next(counts))
    assert _run(tmp_path, "import os; os.kill(os.getpid(), 9)").status == status


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, "None"),
    ],
)
def test_the_allocator_grows_its_blocks_unless_the_user_says_otherwise(tmp_path, monkeypatch, own, expected):
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    code = (
        "import json, os, sys\n"
        "value = os.environ.get('PYTORCH_ALLOC_CONF', 'None')\n"
        "print(json.dumps({'event': 'result', 'result': value}), flush=True)"
    )
    assert _run(tmp_path, code).result == expected
