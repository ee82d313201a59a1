"""The loop that a child process runs: one JSON line in per job, JSON lines out.

In:  {"job": "harness.hardware.device:describe", "payload": {...}}
Out: any number of {"event": NAME, ...}, then {"event": "result", "result": ...}; where the user must act instead of a
     result {"event": "refused", "message": ...}.

A job is a function (payload, emit) -> result; emit(NAME, **fields) sends an event. Whatever libraries print goes to
stderr. The input and a pipe (LIFELINE) stay open as long as the parent lives. When they close this process ends
at once, so that a killed parent leaves nothing running.

    python -m harness.workers.serve
"""

import fcntl
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.errors import UserError
from harness.records.store import without_collector

LIFELINE = "TTFT_BENCH_LIFELINE"  # the number of the pipe's end that a child is given
Job = Callable[[Any, Callable[..., None]], Any]


def main() -> None:
    _end_with_parent()
    # Standard output is for events alone: file descriptor 1 becomes stderr, for prints of C libraries too.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # A thread reads the input, so that its end is noticed while a job runs.
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    _be_killed_first()

    def emit(event: str, **fields: Any) -> None:
        out.write(json.dumps({"event": event, **fields}) + "\n")

    while True:
        request = json.loads(lines.get())
        try:
            result = job_named(request["job"])(request["payload"], emit)
        except UserError as problem:
            emit("refused", message=str(problem))
        except ImportError as problem:
            emit("refused", message=f"{problem}; install what is missing: pip install .")
        else:
            emit("result", result=result)


def job_named(name: str) -> Job:
    """The function that "package.module:function" names. Raises ValueError for one outside this program."""
    module, _, function = name.partition(":")
    if not module.startswith("harness."):
        raise ValueError(f"no job of this program: {name}")
    # Nearly all that torch and transformers make when imported stays: looking for garbage meanwhile is a sixth of the
    # start.
    with without_collector():
        return getattr(import_module(module), function)


def _end_with_parent() -> None:
    """Has the system kill this process when the parent is gone, even while C code holds the GIL and `_read` waits.

    Not by PR_SET_PDEATHSIG (prctl(2)), which fires when the thread ends that started this process: the parent's threads
    may end before it does.
    """
    lifeline = os.environ.pop(LIFELINE, None)
    if lifeline is None or not hasattr(fcntl, "F_SETSIG"):  # started by hand, or not Linux: `_read` still notices
        return
    # fcntl(2): a signal of our choice when the state of the pipe changes, and nothing is ever written into it.
    pipe = int(lifeline)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    # The parent may have died before that.
    if select.select([pipe], [], [], 0)[0]:
        os._exit(1)


def _read(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)


def _be_killed_first() -> None:
    """Makes this process, not its parent, the first that the system kills for memory (proc(5), oom_score_adj)."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux


if __name__ == "__main__":
    main()
