"""A part of the work: one of the jobs that a scheduler starts takes its share of the cells, arms or tasks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import UserError

T = TypeVar("T")
_MOST = 100_000
# Variables of a job's number, its first number and the number of jobs: Slurm's arrays, SkyPilot's managed jobs, and
# Kubernetes's Indexed Jobs, which do not say how many they are, so that the manifest has to (docs/scaling.md).
_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("SKYPILOT_JOB_RANK", "", "SKYPILOT_NUM_JOBS"),
    ("JOB_COMPLETION_INDEX", "", "JOB_COMPLETIONS"),
)


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 1) of `count`; `source` is the variable that it comes from, or "" where it was asked for."""

    number: int
    count: int
    source: str = ""

    def of(self, items: Sequence[T]) -> list[T]:
        """This share of `items`, which are in the same order everywhere; their shares differ by one item at most.

        Each round of `count` items begins one share later, so that no share gets the longest context of every model.
        """
        return [item for k, item in enumerate(items) if (k + k // self.count) % self.count == self.number - 1]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def sentence(self) -> str:
        where = f" by {self.source}; --shard 1/1 takes all" if self.source else ""
        return f"shard {self}{where}"


def parse(text: str | None, environment: Mapping[str, str]) -> Shard | None:
    """The shard that `text` ("3/8") or a scheduler's variables name; None for all of the work. Raises UserError."""
    if text is None:
        return _scheduled(environment)
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= _MOST:
        raise UserError(f"--shard must be i/n with i from 1 to n, as in 3/8, not {text[:40]!r}")
    shard = Shard(int(match[1]), int(match[2]))
    return shard if shard.count > 1 else None


def _scheduled(environment: Mapping[str, str]) -> Shard | None:
    for name, first, count in _SCHEDULERS:
        if name not in environment or count not in environment:
            continue
        values = [environment[name], environment.get(first, "0"), environment[count]]
        if not all(re.fullmatch("[0-9]{1,6}", value) for value in values):
            continue
        number, offset, total = map(int, values)
        # Jobs that are started again, as --array=3,5 of 1-8, are fewer than the shares: their numbers alone would lie.
        if offset > 1 or number - offset >= total:
            raise UserError(
                f"{name}={number} of an array of {total} from {offset}: an array with gaps, or a part of one; "
                "name the share with --shard i/n"
            )
        return Shard(number - offset + 1, total, name) if total > 1 else None
    return None
