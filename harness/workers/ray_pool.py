"""Workers of a queue on the machines of a Ray cluster, with the methods of harness.workers.pool's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.errors import UserError, first_line
from harness.hardware import host_memory
from harness.workers import ray as executor
from harness.workers.cluster import Kind
from harness.workers.process import SERVE, Child, ChildEnded, Outcome

_POLL_S = 0.2
_MOST_EVENTS = 1000  # of one worker at a time


class RayPool:
    """Workers 0 to n - 1, one per card of `kinds`, each an actor that holds its card as long as it lives.

    Use it in a `with`, which ends all of them. A worker has one job at a time.
    """

    sharing = 1  # workers per machine's share of cores

    def __init__(self, ray: Any, kinds: Sequence[Kind], workers: int, command: Sequence[str] = SERVE):
        self.ray, self.command, self.versions = ray, tuple(command), executor.own_versions()
        # Kinds in turn as far as each has cards, so that fewer workers than cards are of every kind.
        self.kinds = [kind for kind in kinds for _ in range(kind.count)][:workers]
        self._actors: dict[int, _Held] = {}

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._actors):
            self.end(worker)

    def device(self, worker: int, first: str) -> str:
        """The device of `worker` as it sees it: of its machine's cards Ray shows it one."""
        return first if first == "cpu" else "cuda:0"

    def start(self, worker: int) -> None:
        """Starts a fresh process for `worker`, on any machine with a free card; one that is still there is killed."""
        self.end(worker)
        options = self.kinds[worker].options(1)
        # One thread sends jobs while another waits for events.
        actor = self.ray.remote(_Actor).options(max_concurrency=2, max_restarts=0, **options).remote(
            self.command, self.versions
        )  # fmt: skip
        self._actors[worker] = _Held(actor, actor.events.options(num_returns="streaming").remote())

    def send(self, worker: int, job: str, payload: Any) -> None:
        """Gives a started worker its next job."""
        self._actors[worker].actor.send.remote(job, payload)

    def events(self, wait_s: float) -> Iterator[tuple[int, dict[str, Any] | Outcome | UserError]]:
        """As harness.workers.pool.Pool.events."""
        if streams := [held.stream for held in self._actors.values()]:
            self.ray.wait(streams, timeout=wait_s, fetch_local=False)
        heard = list(self._heard())
        yield from heard

    def end(self, worker: int) -> None:
        """Kills the worker's process, if there is one, and all that it started."""
        if held := self._actors.pop(worker, None):
            self.ray.kill(held.actor, no_restart=True)

    def _heard(self) -> Iterator[tuple[int, dict[str, Any] | Outcome | UserError]]:
        for worker, held in list(self._actors.items()):
            for _ in range(_MOST_EVENTS):
                if not self.ray.wait([held.stream], timeout=0, fetch_local=False)[0]:
                    break
                event = self._next(held)
                yield worker, event
                if isinstance(event, Outcome):
                    self.end(worker)
                    break

    def _next(self, held: "_Held") -> dict[str, Any] | Outcome | UserError:
        try:
            event = self.ray.get(next(held.stream))
        except self.ray.exceptions.RayTaskError as problem:
            return UserError(executor.cannot_run(problem))
        except (self.ray.exceptions.RayError, StopIteration) as problem:
            return Outcome("killed", f"its machine was lost ({first_line(problem)})")
        if isinstance(event, str):
            return UserError(event)
        return event


@dataclass(frozen=True)
class _Held:
    actor: Any
    stream: Any  # of its events


class _Actor:
    """Runs on the worker's machine: a process that serves jobs, and what it sends."""

    def __init__(self, command: Sequence[str], versions: dict[str, str]):
        place = executor.here()
        self.refused = executor.different(versions, executor.own_versions(), place.host)
        self.place, self.folder = place, TemporaryDirectory()
        self.log = Path(self.folder.name) / "log"
        with self.log.open("xb") as stderr:
            self.child = Child(command, stderr)

    def send(self, job: str, payload: Any) -> None:
        self.child.send(job, payload)

    def events(self) -> Iterator[dict[str, Any] | Outcome | str]:
        """Events of the process, an Outcome when it has died, a text where the user must act."""
        if self.refused:
            yield self.refused
        yield {"event": executor.PLACE, "place": self.place}
        while True:
            try:
                event = self.child.receive(_POLL_S)
                self.child.look_at_memory()
                if event:
                    yield event
            except UserError as problem:
                yield str(problem)
            except ChildEnded:
                yield self.child.how_it_died(host_memory.total_bytes(), self.log)
                return
