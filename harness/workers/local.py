"""Runs jobs in other processes of this machine: `ask` one that stays alive, or `run` a job in fresh ones.

Another executor, for other machines say, needs these methods and nothing else: `ask`, `run`, `stop`, `resume`, `close`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from harness.hardware import host_memory
from harness.workers.logs import make_visible
from harness.workers.process import SERVE, Child, ChildEnded, Outcome, rank_environments

_POLL_S = 0.5
_ANSWER_WITHIN_S = 300.0
# Share of the machine's memory to keep free, at least 256 MiB: with less, everything stalls before anything is killed.
_KEEP_FREE = 0.03


class AskFailed(Exception):
    """The process died, or did not answer in time; the message says which."""


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of a job. stderr goes to `log`; with `guard_memory` the job ends before the machine's memory runs out."""

    log: Path
    timeout_s: float = float("inf")
    guard_memory: bool = False


class LocalExecutor:
    """Executor for this machine. Use it in a `with`, which ends the process that answers `ask`.

    Tests replace `command`, `environment` and `free_bytes`; `environment` also hides the GPUs from a process.
    """

    on_this_machine = True  # its jobs see this process's files

    def __init__(
        self,
        command: Sequence[str] = SERVE,
        environment: Mapping[str, str] | None = None,
        free_bytes: Callable[[], int] = host_memory.free_bytes,
    ):
        self.command, self.environment, self.free_bytes = command, environment, free_bytes
        self._held = ExitStack()
        self._child: Child | None = None  # answers `ask`
        self._stops: SimpleQueue[None] = SimpleQueue()  # one of each `stop` that no `resume` has taken back

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process that answers `ask`; the next `ask` starts another."""
        if self._child:
            self._child.end()
        self._child = None
        self._held.close()

    def stop(self) -> None:
        """Ends a job that runs in another thread, with KeyboardInterrupt there."""
        self._stops.put(None)

    def resume(self) -> None:
        """Takes one `stop` back: after as many as there were, jobs run again."""
        self._stops.get_nowait()

    def ask(self, job: str, payload: Any) -> Any:
        """The result of a short job, from a process that stays alive for the next one.

        Raises UserError with the job's message where the user must act, and AskFailed where no answer comes.
        """
        # The first question starts the process: imports of torch and transformers are paid once.
        if not self._child:
            self._log = Path(self._held.enter_context(TemporaryDirectory())) / "log"
            self._child = Child(self.command, self._held.enter_context(self._log.open("wb")), self.environment)
        child = self._child
        child.send(job, payload)
        try:
            while True:
                event = child.receive(_ANSWER_WITHIN_S)
                if event is None:
                    raise AskFailed(f"no answer within {_ANSWER_WITHIN_S:.0f} s")
                if event["event"] == "result":
                    return event["result"]
        except ChildEnded:
            died = child.how_it_died(1, self._log)
            self.close()
            raise AskFailed(died.reason) from None

    def run(
        self,
        job: str,
        payload: Any,
        limits: RunLimits,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        processes: int = 1,
    ) -> Outcome:
        """Runs `job` in `processes` fresh processes and returns how it ended; events come from the first one.

        `on_event` receives every event, and an empty one about twice per second while there is none. Raises UserError
        with the job's message where the user must act.
        """
        # A log of an earlier run goes; through a link in a folder from elsewhere nothing is written.
        limits.log.unlink(missing_ok=True)
        with limits.log.open("xb") as stderr, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            children = [
                Child(self.command, stderr, {**(self.environment or {}), **rank})
                for rank in rank_environments(processes, folder)
            ]
            outcome = None
            try:
                for child in children:
                    child.send(job, payload)
                outcome = self._follow(children, limits, on_event)
            finally:
                # A process that has given its result may finish writing; any other is killed at once.
                for child in children:
                    child.end(10.0 if outcome and outcome.status == "ok" else 0.0)
                make_visible(limits.log)
        return outcome

    def _follow(self, children: Sequence[Child], limits: RunLimits, on_event: Callable) -> Outcome:
        """Waits for the first child's result, and watches time, memory and the other children meanwhile."""
        first, total = children[0], host_memory.total_bytes()
        keep_bytes, until = max(_KEEP_FREE * total, 256 << 20), time.monotonic() + limits.timeout_s
        while True:
            if not self._stops.empty():
                raise KeyboardInterrupt
            try:
                event = first.receive(_POLL_S) or {}
            except ChildEnded:
                # It may have died because another one failed, which then says more.
                return _failure(children[1:]) or first.how_it_died(total, limits.log)
            first.look_at_memory()
            if event.get("event") == "result":
                return Outcome("ok", "", event["result"])
            on_event(event)
            if time.monotonic() > until:
                return Outcome("timeout", f"ended after {limits.timeout_s:.0f} s without a result")
            if limits.guard_memory and self.free_bytes() < keep_bytes:
                gib = first.look_at_memory() / 2**30
                return Outcome("oom", f"the machine's memory ran out with {gib:.1f} GiB in this process")
            # If another rank failed or died, the first would wait for it until torch.distributed's timeout.
            if failure := _failure(children[1:]):
                return failure
            for other in children[1:]:
                if other.process.poll() not in (None, 0):
                    return other.how_it_died(total, limits.log)


def _failure(others: Sequence[Child]) -> Outcome | None:
    """The result of a child that ended other than well, before the first one had any; None where there is none.

    Reads all that they have sent: a pipe that nobody reads is full after a thousand steps, and the child then waits.
    """
    for child in others:
        with suppress(ChildEnded):
            while event := child.receive(0.0):
                result = event.get("result")
                if event["event"] == "result" and isinstance(result, dict) and result.get("status", "ok") != "ok":
                    return Outcome("ok", "", result)
    return None
