"""Several processes that stay alive between jobs, each with its own environment: a queue's workers on this machine."""

import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.hardware import host_memory
from harness.workers.logs import make_visible
from harness.workers.process import SERVE, Child, ChildEnded, Outcome


class Pool:
    """Workers 0 to n - 1, one per environment in `environments`; each writes its stderr to a log in `folder`.

    Use it in a `with`, which ends all of them. A worker has one job at a time.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], folder: Path, command: Sequence[str] = SERVE):
        self.environments, self.folder, self.command = environments, folder, command
        self.sharing = len(environments)  # workers that share this machine's cores
        self._children: dict[int, Child] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._children):
            self.end(worker)

    def device(self, worker: int, first: str) -> str:
        """The device of `worker`, where that of worker 0 is `first`."""
        kind, _, number = first.partition(":")
        return first if kind == "cpu" else f"{kind}:{int(number or 0) + worker}"

    def log(self, worker: int) -> Path:
        return self.folder / f"worker-{worker}.log"

    def start(self, worker: int) -> None:
        """Starts a fresh process for `worker`; one that is still there is killed first."""
        self.end(worker)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Through a link in a folder from elsewhere nothing is written.
        self.log(worker).unlink(missing_ok=True)
        with self.log(worker).open("xb") as stderr:
            self._children[worker] = Child(self.command, stderr, self.environments[worker])

    def send(self, worker: int, job: str, payload: Any) -> None:
        """Gives a started worker its next job."""
        self._children[worker].send(job, payload)

    def events(self, wait_s: float) -> Iterator[tuple[int, dict[str, Any] | Outcome | UserError]]:
        """What the workers have sent, waiting up to `wait_s` for the first of it.

        An Outcome says how a worker died, which is then gone; a UserError what the user must do, in a job's words.
        """
        heard = list(self._heard())
        if not heard and self._children:
            outputs = [child.process.stdout for child in self._children.values() if child.process.stdout]
            select.select(outputs, [], [], wait_s)
            heard = list(self._heard())
        yield from heard

    def _heard(self) -> Iterator[tuple[int, dict[str, Any] | Outcome | UserError]]:
        for worker, child in list(self._children.items()):
            try:
                while event := child.receive(0.0):
                    yield worker, event
                child.look_at_memory()
            except UserError as problem:
                yield worker, problem
            except ChildEnded:
                outcome = child.how_it_died(host_memory.total_bytes(), self.log(worker))
                self.end(worker)
                yield worker, outcome

    def end(self, worker: int) -> None:
        """Kills the worker's process, if there is one, and all that it started."""
        if child := self._children.pop(worker, None):
            child.end()
            with suppress(OSError):
                make_visible(self.log(worker))
