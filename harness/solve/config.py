"""What a run is asked for, complete and checked before anything is loaded, and what its workers are told."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.arc.task import Solutions, Task
from harness.records.arm import TuneSpec
from harness.records.stored import to_stored
from harness.shard import Shard
from harness.solve import submission
from harness.tune.config import TuneConfig

LOAD = "harness.solve.worker:load"
SOLVE = "harness.solve.worker:solve"


@dataclass(frozen=True, kw_only=True)
class SolveConfig:
    """A fine-tune of one adapter per task (`tune`, with one arm), and what is around it.

    `end` is when all must be over, in seconds since the epoch, or None: `budget_s` after the start. `workers` is None
    for one per card. Solutions are only for a score at the end.
    """

    tune: TuneConfig
    out: Path
    budget_s: float
    end: float | None = None
    workers: int | None = None
    passes: int = 2  # of the queue: a second one is over the least sure answers, while there is time
    shard: Shard | None = None  # of the tasks that this run answers; all are in its submission

    def __post_init__(self) -> None:
        # Known at the start, not after twelve hours.
        submission.check(self.out, self.tune.tasks)

    @property
    def arm(self) -> str:
        return self.tune.arms[0].name

    @property
    def tasks(self) -> Sequence[Task]:
        return self.tune.tasks

    @property
    def share(self) -> Sequence[Task]:
        """The tasks that this run answers."""
        return self.shard.of(self.tasks) if self.shard else self.tasks

    @property
    def solutions(self) -> Solutions:
        return self.tune.solutions


@dataclass(frozen=True)
class LoadJob:
    """What a worker loads once."""

    spec: TuneSpec
    tasks: tuple[Task, ...]
    arm: str
    index: int  # of the worker
    workers: int


@dataclass(frozen=True)
class TaskJob:
    """One task for a worker: how many views to answer, and seconds from now until training stops (`train_s`), decoding
    (`decode_s`; scoring has the rest), and all. A step is expected to take `step_s`: where there is no time for one,
    none is begun."""

    task: str
    attempt: int
    views: int
    step_s: float
    train_s: float
    decode_s: float
    cap_s: float


def work_key(spec: TuneSpec, arm: str, tasks: Sequence[Task]) -> str:
    """The key of what a run answers and how, on whatever device and under whatever library versions: shards of it on
    different cards are one work."""
    anywhere = replace(spec, device="", device_name="", compute_dtype="")
    return run_key(anywhere, arm, tasks, {})


def run_key(spec: TuneSpec, arm: str, tasks: Sequence[Task], versions: dict[str, str]) -> str:
    """The key of a run: other settings, other library versions or other grids under the same ids are another run."""
    grids = json.dumps([to_stored(task) for task in tasks], separators=(",", ":"))
    digest = hashlib.sha256(f"{spec.key(arm, versions)} {spec.scope} {grids}".encode())
    return digest.hexdigest()[:16]
