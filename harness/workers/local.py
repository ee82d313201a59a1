"""Jobs run on this machine: `ask` a process that stays, or `run` one in processes of its own.

A second executor (on other machines, say) has the same two methods and nothing else.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.hardware import host_memory
from harness.workers.process import SERVE, Child, ChildEnded, Outcome, rank_environments

_POLL_S = 0.5
_ANSWER_WITHIN_S = 300.0
_KEEP_FREE = 0.03  # of the machine's memory, at least 256 MiB: below it everything stalls before anything is killed


class AskFailed(Exception):
    """The process that was asked died, or did not answer; the message says how."""


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """What a job may take. stderr goes to `log`; with `guard_memory` it is ended when the machine's memory runs out."""

    log: Path
    timeout_s: float = float("inf")
    guard_memory: bool = False


class LocalExecutor:
    """Use in a `with`: the process that answers `ask` is ended with it.

    `command`, `environment` and `free_bytes` are seams for tests, and for processes that must not see a card.
    """

    def __init__(
        self,
        command: Sequence[str] = SERVE,
        environment: Mapping[str, str] | None = None,
        free_bytes: Callable[[], int] = host_memory.free_bytes,
    ):
        self.command, self.environment, self.free_bytes = command, environment, free_bytes
        self._held = ExitStack()
        self._child: Child | None = None  # it answers `ask`

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process that answers; the next `ask` starts another."""
        if self._child:
            self._child.end()
        self._child = None
        self._held.close()

    def ask(self, job: str, payload: Any) -> Any:
        """The result of a short job, by a process that stays for the next one.

        Raises UserError with the job's own words where the user must act, and AskFailed where there is no answer.
        """
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
        """Runs `job` in `processes` fresh processes, of which the first speaks; whatever happens comes back.

        `on_event` is given each event, and an empty one now and then while there is none. Raises UserError with the
        job's own words where the user must act.
        """
        with limits.log.open("wb") as stderr:
            children = [
                Child(self.command, stderr, {**(self.environment or {}), **rank})
                for rank in rank_environments(processes)
            ]
            outcome = None
            try:
                for child in children:
                    child.send(job, payload)
                outcome = self._follow(children, limits, on_event)
            finally:
                for child in children:
                    child.end(10.0 if outcome and outcome.status == "ok" else 0.0)
        return outcome

    def _follow(self, children: Sequence[Child], limits: RunLimits, on_event: Callable) -> Outcome:
        first, total = children[0], host_memory.total_bytes()
        keep_bytes, until = max(_KEEP_FREE * total, 256 << 20), time.monotonic() + limits.timeout_s
        while True:
            try:
                event = first.receive(_POLL_S) or {}
            except ChildEnded:
                return first.how_it_died(total, limits.log)
            first.look_at_memory()
            if event.get("event") == "result":
                return Outcome("ok", "", event["result"])
            on_event(event)
            if time.monotonic() > until:
                return Outcome("timeout", f"ended after {limits.timeout_s:.0f} s without a result")
            if limits.guard_memory and self.free_bytes() < keep_bytes:
                gib = first.look_at_memory() / 2**30
                return Outcome("oom", f"the machine's memory ran out with {gib:.1f} GiB in this process")
            # Without one of its fellows the first would wait for half an hour.
            for other in children[1:]:
                if other.process.poll() not in (None, 0):
                    return other.how_it_died(total, limits.log)
