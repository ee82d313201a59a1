"""The processes that a sweep starts, watched from outside: time, memory, and how they ended."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.errors import UserError
from harness.hardware import host_memory

WORKER = (sys.executable, "-m", "harness.measure.worker")
SURVEY = (sys.executable, "-m", "harness.measure.inspector")
_POLL_S = 0.5
_ANSWER_WITHIN_S = 300
_KEEP_FREE = 0.03  # of the machine's memory, at least 256 MiB: below it everything stalls before anything is killed


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: the fields of the Measurement that it gave, or a status and the reason for it."""

    status: str
    reason: str
    seen: dict[str, Any]


def run_worker(
    job: dict[str, Any],
    log: Path,
    timeout_s: float,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    command: Sequence[str] = WORKER,
    free_bytes: Callable[[], int] = host_memory.free_bytes,
) -> Outcome:
    """Runs one cell in a process of its own; whatever happens to that process comes back as an `Outcome`.

    What it writes to stderr goes to `log`. It is ended after `timeout_s`, or when the machine's memory runs out.
    """
    total = host_memory.total_bytes()
    keep = max(_KEEP_FREE * total, 256 << 20)
    on_cpu = job["cell"]["device"] == "cpu"
    result: dict[str, Any] | None = None
    resident, ended = 0, ""
    with log.open("wb") as stderr:
        process = _start(command, stderr)
        try:
            with selectors.DefaultSelector() as ready:
                _send(process, job)
                ready.register(process.stdout, selectors.EVENT_READ)
                until, buffer = time.monotonic() + timeout_s, b""
                while not ended:
                    if ready.select(_POLL_S):
                        part = os.read(process.stdout.fileno(), 1 << 16)
                        if not part:
                            break
                        *lines, buffer = (buffer + part).split(b"\n")
                        for line in lines:
                            event = json.loads(line)
                            if event.pop("event") == "result":
                                result = event
                            else:
                                on_event(event)
                    else:
                        on_event({})
                    resident = max(resident, _resident(process.pid))
                    if time.monotonic() > until:
                        ended = "timeout"
                    elif on_cpu and free_bytes() < keep:
                        ended = "oom"
        except BaseException:  # Ctrl-C above all: the worker must not go on
            ended = "interrupted"
            raise
        finally:
            _end(process, now=result is None and bool(ended))
    if result is not None:
        return Outcome(result.pop("status"), result.pop("reason"), result)
    if ended == "timeout":
        return Outcome("timeout", f"ended after {timeout_s:.0f} s without a result", {})
    gib = resident / 2**30
    if ended == "oom":
        return Outcome("oom", f"the machine's memory ran out with {gib:.1f} GiB in this process", {})
    return _how_it_died(process.returncode, resident, total, log)


def _how_it_died(code: int, resident: int, total: int, log: Path) -> Outcome:
    if code == -signal.SIGKILL and resident > 0.7 * total:
        return Outcome("oom", f"killed by the system with {resident / 2**30:.1f} GiB in this process", {})
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (by the system for want of memory, or by somebody)" if code == -signal.SIGKILL else ""
        return Outcome("killed" if code == -signal.SIGKILL else "crashed", f"ended by {name}{hint}", {})
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return Outcome("crashed", (lines[-1][:300] if lines else f"ended with code {code}") + f"; see {log.name}", {})


class Survey:
    """The process that answers for the device; started at the first question. Use in a `with`."""

    def __init__(self, log: Path, command: Sequence[str] = SURVEY):
        self.log, self.command, self.process = log, command, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            _end(self.process, now=True)
            self.stderr.close()

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to `question`. Raises UserError with the survey's own words, or its last ones if it died."""
        if not self.process:
            self.stderr = self.log.open("wb")
            self.process = _start(self.command, self.stderr)
        _send(self.process, question)
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(_ANSWER_WITHIN_S):
                raise UserError(
                    f"looking at the device took over {_ANSWER_WITHIN_S} s; try `nvidia-smi`, or --device cpu"
                )
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            died = _how_it_died(code, 0, 1, self.log)
            raise UserError(f"looking at the device failed: {died.reason}; try `harness doctor`")
        said = json.loads(line)
        if "error" in said:
            raise UserError(said["error"])
        return said


def _start(command: Sequence[str], stderr) -> subprocess.Popen:
    # A group of its own: Ctrl-C is for the sweep, which then ends its worker in order.
    # CUDA then numbers the cards as NVML does, whose memory readings are about the same card only so.
    environment = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, env=environment
    )


def _send(process: subprocess.Popen, said: dict[str, Any]) -> None:
    try:
        process.stdin.write(json.dumps(said).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has died already; whoever waits for its answer will see that


def _end(process: subprocess.Popen, now: bool) -> None:
    """Waits for a process that has said its last word, or kills it with all that it started."""
    try:
        process.wait(0 if now else 10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0
