"""Runs jobs on the machines of a Ray cluster: the second executor, with the methods of harness.workers.local's.

A job is a Ray task that has its card from Ray and runs a LocalExecutor beside it: a fresh process per job, whose end is
told apart as it is here. Events and results come back as what the task yields, so that no disk is shared.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import harness
from harness.errors import UserError, first_line
from harness.hardware.environment import versions
from harness.records.measurement import Place
from harness.workers.cluster import Kind, Machines
from harness.workers.local import AskFailed, LocalExecutor, RunLimits
from harness.workers.process import SERVE, Outcome

_POLL_S = 0.5
_ATTEMPTS = 2  # of a job whose machine is lost
_DEVICE_JOBS = "harness.hardware."
_LOG_BYTES = 1 << 20  # of a job's log that come back
PLACE, _ENDED, _REFUSED = "place", "ray ended", "refused"


class Lost(Exception):
    """The machine, or Ray's process on it, is gone."""


class RayExecutor:
    """Executor for the cards of one `kind`; `ray` is what harness.workers.cluster.connect gave.

    Several threads may `run` jobs at once; Ray gives each its card, or lets it wait for one. Tests replace `command`.
    """

    on_this_machine = False
    patience_s = 60.0  # for a machine that may come back where none can run a job any more

    def __init__(self, ray: Any, kind: Kind, command: Sequence[str] = ()):
        self.ray, self.kind, self.command = ray, kind, tuple(command) or SERVE
        self.versions = own_versions()
        self._stops: SimpleQueue[None] = SimpleQueue()  # as LocalExecutor's
        self._here, self._asking = LocalExecutor(self.command), threading.Lock()
        self._task = ray.remote(max_retries=0)(_serve)

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """As LocalExecutor.stop, of all jobs."""
        self._stops.put(None)

    def resume(self) -> None:
        """As LocalExecutor.resume."""
        self._stops.get_nowait()

    def close(self) -> None:
        """As LocalExecutor.close."""
        self._here.close()

    def ask(self, job: str, payload: Any) -> Any:
        """As LocalExecutor.ask: what is about a device on a card of this kind, in a process of its own; any other on
        this machine."""
        if not job.startswith(_DEVICE_JOBS):
            with self._asking:
                return self._here.ask(job, payload)
        with TemporaryDirectory() as folder:
            outcome = self.run(job, payload, RunLimits(log=Path(folder) / "log"))
        if outcome.status != "ok":
            raise AskFailed(outcome.reason)
        return outcome.result

    def run(
        self,
        job: str,
        payload: Any,
        limits: RunLimits,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        processes: int = 1,
    ) -> Outcome:
        """As LocalExecutor.run. A job whose machine is lost is done again once; the outcome's place says so.

        Raises UserError also where the machine has other versions than this one, and Gone where none is left.
        """
        request = _Request(
            job=job,
            payload=payload,
            command=self.command,
            timeout_s=limits.timeout_s,
            guard_memory=limits.guard_memory,
            processes=processes,
            versions=self.versions,
        )
        # The job's first event says where it runs.
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._followed(request, limits.log, on_event, attempt)
            except Lost as problem:
                lost = str(problem)
        return Outcome("killed", f"its machine was lost {_ATTEMPTS} times ({lost})")

    def _followed(self, request: "_Request", log: Path, on_event: Callable, attempt: int) -> Outcome:
        ray, place = self.ray, None
        machines = Machines(ray, self.kind, request.processes, self.patience_s)
        stream = self._task.options(num_returns="streaming", **self.kind.options(request.processes)).remote(request)
        try:
            while True:
                event = self._next(stream)
                if event is None:
                    on_event({})
                    if place is None:
                        machines.must_be_there()
                elif event["event"] == PLACE:
                    place = replace(event["place"], attempt=attempt)
                    on_event({"event": PLACE, "place": place})
                elif event["event"] == _REFUSED:
                    raise UserError(event["message"])
                elif event["event"] == _ENDED:
                    log.unlink(missing_ok=True)
                    with log.open("xb") as file:
                        file.write(event["log"])
                    return replace(event["outcome"], place=place)
                else:
                    on_event(event)
        except BaseException:
            ray.cancel(stream, force=True)
            raise

    def _next(self, stream: Any) -> dict[str, Any] | None:
        """The next event, None where there is none for a while. Raises Lost where the machine is."""
        ray = self.ray
        if not self._stops.empty():
            raise KeyboardInterrupt
        ready, _ = ray.wait([stream], timeout=_POLL_S, fetch_local=False)
        if not ready:
            return None
        try:
            return ray.get(next(stream))
        except ray.exceptions.RayTaskError as problem:
            # Ray could not run the task at all: this program is not there, or another version of it.
            raise UserError(cannot_run(problem)) from None
        except (ray.exceptions.RayError, StopIteration) as problem:
            raise Lost(first_line(problem)) from None


Executor = LocalExecutor | RayExecutor


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What a task is to run, and the versions that it must have."""

    job: str
    payload: Any
    command: tuple[str, ...]
    timeout_s: float
    guard_memory: bool
    processes: int
    versions: Mapping[str, str]


def own_versions() -> dict[str, str]:
    """Versions that must be alike on all machines."""
    return {"ttft-bench": harness.__version__, **versions()}


def different(wanted: Mapping[str, str], present: Mapping[str, str], host: str) -> str:
    """What the user must do where a machine's versions are not `wanted`; "" where they are."""
    apart = [name for name in wanted if present.get(name) != wanted[name]]
    if not apart:
        return ""
    theirs = ", ".join(f"{name} {present.get(name, 'not installed')} ({wanted[name]} here)" for name in apart)
    return f"{host} has {theirs}; install the same on all machines of the cluster"


def _serve(request: _Request) -> Iterator[dict[str, Any]]:
    """The Ray task: yields the job's events, then how it ended."""
    place = here()
    yield {"event": PLACE, "place": place}
    if problem := different(request.versions, own_versions(), place.host):
        yield {"event": _REFUSED, "message": problem}
        return
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_work, args=(request, events.put), daemon=True).start()
    while True:
        event = events.get()
        yield event
        if event["event"] in (_ENDED, _REFUSED):
            return


def _work(request: _Request, put: Callable[[dict[str, Any]], None]) -> None:
    """Runs the job in a process of its own. Puts its events, and an end whatever happens."""
    try:
        with TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            limits = RunLimits(log=log, timeout_s=request.timeout_s, guard_memory=request.guard_memory)
            executor = LocalExecutor(request.command)
            outcome = executor.run(
                request.job, request.payload, limits, lambda event: put(event) if event else None, request.processes
            )
            text = log.read_bytes()[-_LOG_BYTES:]
    except UserError as problem:
        put({"event": _REFUSED, "message": str(problem)})
        return
    except BaseException as problem:
        outcome, text = Outcome("crashed", first_line(problem)), b""
    put({"event": _ENDED, "outcome": outcome, "log": text})


def here() -> Place:
    """The machine of this Ray task and the cards that Ray gave it."""
    import socket

    import ray

    cards = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return Place(host=socket.gethostname(), card=",".join(map(str, cards)))


def cannot_run(problem: Exception) -> str:
    """What to say where Ray could not run this program on a machine: the last line of `problem`'s traceback."""
    last = next((line for line in reversed(str(problem).splitlines()) if line.strip()), "").strip()
    return f"a machine of the Ray cluster cannot run this program: {last[:300]}"
