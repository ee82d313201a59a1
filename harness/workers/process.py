"""One child process: start it, send it jobs, read its events, watch its memory, and say how it ended."""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from harness.errors import UserError
from harness.hardware import card_errors, host_memory
from harness.hardware.environment import versions
from harness.records.measurement import Place
from harness.workers.logs import fatal_line, last_line
from harness.workers.serve import LIFELINE

# With -P the current folder, which may be anybody's, is not searched for modules.
SERVE = (sys.executable, "-P", "-m", "harness.workers.serve")


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its result, or a status (timeout, oom, killed, crashed) with the reason for it, and in a cluster
    where."""

    status: str
    reason: str
    result: Any = None
    place: Place | None = None


class ChildEnded(Exception):
    """The child closed its output without a result."""


class Child:
    """A process that serves jobs (harness.workers.serve); `environment` is added to this process's own."""

    def __init__(self, command: Sequence[str], stderr: IO[bytes], environment: Mapping[str, str] | None = None):
        # The child holds one end of a pipe; the other one closes when this process ends, however it does.
        lifeline, self._lifeline = os.pipe()
        # The order of cards (CUDA_DEVICE_ORDER) is this process's, see harness/__init__.py.
        root = str(Path(__file__).parents[2])
        full_environment = {
            **_allocator(),
            **os.environ,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
            **(environment or {}),
            LIFELINE: str(lifeline),
        }
        # In a session of its own, so that Ctrl-C reaches the parent alone, which then ends its children in order.
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=stderr,
                start_new_session=True,
                env=full_environment,
                pass_fds=(lifeline,),
            )
        finally:
            os.close(lifeline)
        assert self.process.stdin and self.process.stdout  # they are pipes
        self._in, self._out = self.process.stdin, self.process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._out, selectors.EVENT_READ)
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        self.peak_resident_bytes = 0
        self._oom_kills = host_memory.oom_kills()

    def send(self, job: str, payload: Any) -> None:
        line = json.dumps({"job": job, "payload": payload}).encode() + b"\n"
        with suppress(BrokenPipeError):  # it has died already; `receive` will raise ChildEnded
            self._in.write(line)
            self._in.flush()

    def receive(self, wait_s: float) -> dict[str, Any] | None:
        """The next event, or None if there is none within `wait_s`.

        Raises ChildEnded where none will come, and UserError with the job's message where the user must act.
        """
        until = time.monotonic() + wait_s
        while not self._events:
            if not self._ready.select(max(0.0, until - time.monotonic())):
                return None
            # Events are lines; the last part may be half of one.
            part = os.read(self._out.fileno(), 1 << 16)
            if not part:
                raise ChildEnded
            *lines, self._buffer = (self._buffer + part).split(b"\n")
            self._events += [json.loads(line) for line in lines]
        event = self._events.pop(0)
        if event["event"] == "refused":
            raise UserError(event["message"])
        return event

    def look_at_memory(self) -> int:
        """Resident bytes now; `peak_resident_bytes` keeps the most of all calls."""
        try:
            now = psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            now = 0
        self.peak_resident_bytes = max(self.peak_resident_bytes, now)
        return now

    def end(self, wait_s: float = 0.0) -> None:
        """Closes the process's input, which ends it; after `wait_s` kills it with all processes that it started."""
        with suppress(BrokenPipeError):
            self._in.close()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        finally:
            self._ready.close()
            self._out.close()
            os.close(self._lifeline)

    def how_it_died(self, total_bytes: int, log: Path) -> Outcome:
        """The outcome of a process that ended without a result; `log` has its stderr."""
        code = self.process.wait()
        # The system's OOM killer sends SIGKILL. Its victim is counted by the group whose limit was met; without such a
        # limit, a process that held most of the memory was the victim.
        counted = host_memory.oom_kills() > self._oom_kills
        if code == -signal.SIGKILL and (counted or self.peak_resident_bytes > 0.7 * total_bytes):
            gib = self.peak_resident_bytes / 2**30
            return Outcome("oom", f"killed by the system with {gib:.1f} GiB in this process")
        # C++ code ends a process without an exception, and says in its log why: a card that was lost, say.
        words, last = fatal_line(log), last_line(log)
        if code > 0 and words not in last:
            words = ""  # an exception came after it
        why = card_errors.lost(words) or words
        status = "oom" if card_errors.ran_out(words) else "crashed"
        if code == -signal.SIGKILL:
            return Outcome("killed", "ended by SIGKILL (by the system for want of memory, or by somebody)")
        if code < 0:
            return Outcome(status, f"ended by {signal.Signals(-code).name}{f': {why}' if why else ''}")
        # An exception: its last line says which.
        return Outcome(status, f"{why or last or f'ended with code {code}'}; see {log.name}")


def _allocator() -> dict[str, str]:
    """The setting by which torch's allocator grows its blocks, unless the user has settings of their own.

    Packs of many sizes would else leave gaps that fit nothing, and memory runs out hours later.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is the name before torch 2.9
    if any(name in os.environ for name in names):
        return {}
    installed = re.match(r"([0-9]+)\.([0-9]+)", versions().get("torch", ""))
    older = installed is not None and (int(installed[1]), int(installed[2])) < (2, 9)
    return {names[older]: "expandable_segments:True"}


def rank_environments(processes: int, folder: str) -> list[dict[str, str]]:
    """The variables of harness.train.distributed, one dict per process of this machine; empty for a single process.

    The processes find each other by a file in `folder`, and talk over the loopback interface alone: what passes between
    them are pickles, so nobody else may connect.
    """
    if processes == 1:
        return [{}]
    loopback = _loopback()
    common = {
        "WORLD_SIZE": str(processes),
        "TTFT_BENCH_RENDEZVOUS": str(Path(folder) / "rendezvous"),
        "GLOO_SOCKET_IFNAME": loopback,
        # Without "=" NCCL takes every interface whose name begins so.
        "NCCL_SOCKET_IFNAME": f"={loopback}",
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _loopback() -> str:
    """The name of the loopback interface: lo on Linux, lo0 on macOS."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == "127.0.0.1" for address in addresses):
            return name
    return "lo"
