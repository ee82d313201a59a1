"""Which task a free worker takes next, and until when: so that every task is answered before the end, and no time is
left over.

The first pass takes every task once, the longest first. A task may take longer than expected, as far as the time that
is left allows for all: its cap is its expected time, stretched by (time left on all workers) / (expected time of what
waits). The cap is kept, whatever the task does, so the last task ends before the end. Time left over goes to a second
pass over the tasks whose answers are least sure. The same scheduler runs the simulation (harness.solve.simulation).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_STRETCH = 4.0  # times its expected time that one task may take, however much is left
SLACK_SHARE = 0.1  # of the time that nothing needs, which one task may take
LEAST_STRETCH = 1.5  # times the seconds of its shortest answer that a task gets, however little is left
LEAST_SHARE = 0.5  # of a task's expected time: with less a second try is not begun


@dataclass(frozen=True)
class Assignment:
    """`task` is to be done by `until`, on the scheduler's clock in seconds. `attempt` counts from 1."""

    task: str
    until: float
    attempt: int


@dataclass
class Scheduler:
    """The queue of one run. `expected` are seconds per task on a worker of slowness 1, `least` what an answer takes at
    least; `end` is when all must be done. Times are on one clock of the caller's, in seconds.
    """

    expected: Mapping[str, float]
    least: Mapping[str, float]
    end: float
    workers: int
    passes: int = 2  # tries of one task at most, those that failed left out
    attempts: dict[str, int] = field(default_factory=dict)  # begun, by task
    confidence: dict[str, float] = field(default_factory=dict)  # 0 to 1, of tasks that are answered
    running: dict[int, Assignment] = field(default_factory=dict)  # by worker
    gone: set[int] = field(default_factory=set)  # workers that do nothing any more
    slowness: dict[int, float] = field(default_factory=dict)  # measured seconds over expected ones, by worker

    def __post_init__(self):
        # Longest first, so that no long task begins last; ids break ties.
        self._waiting = sorted(self.expected, key=lambda task: (-self.expected[task], task))
        self._work = sum(self.expected.values())  # of what waits, kept and not summed anew: simulations ask often

    @property
    def waiting(self) -> list[str]:
        """Tasks that no worker has begun, in the order of the queue."""
        return self._waiting

    def next(self, worker: int, now: float) -> Assignment | None:
        """What `worker`, which is free, does next; None where nothing that fits is left."""
        if self._waiting:
            # A worker that joins late takes what it can still do.
            task = self._waiting.pop(0)
            self._work -= self.expected[task]
            until = min(self.end, now + self._cap(task, worker, now))
        else:
            again = self._least_sure(worker, now)
            if again is None:
                return None
            task, until = again, min(self.end, now + MOST_STRETCH * self._seconds(again, worker))
        self.attempts[task] = self.attempts.get(task, 0) + 1
        self.running[worker] = Assignment(task, until, self.attempts[task])
        return self.running[worker]

    def done(self, worker: int, seconds: float, confidence: float, work_s: float | None = None) -> None:
        """`worker` is over with its task after `seconds`, of which the answers are sure by `confidence` (0 to 1).

        `work_s`: what it did was expected to take so long, on a worker of slowness 1; by default all of the task.
        """
        task = self.running.pop(worker).task
        self.confidence[task] = max(confidence, self.confidence.get(task, 0.0))
        # A running mean of how slow the worker is: tasks differ more than workers do.
        ratio = seconds / (work_s or self.expected[task])
        self.slowness[worker] = 0.7 * self.slowness.get(worker, ratio) + 0.3 * ratio

    def failed(self, worker: int) -> bool:
        """`worker` died at its task; whether that is tried once more, at the head of the queue."""
        task = self.running.pop(worker).task
        if self.attempts[task] > 1 or task in self.confidence:
            return False
        self._waiting.insert(0, task)
        self._work += self.expected[task]
        return True

    def remember(self, task: str, attempt: int, answered: bool, confidence: float) -> None:
        """Counts an attempt of an earlier start, in the order of the attempts."""
        self.attempts[task] = max(attempt, self.attempts.get(task, 0))
        if answered:
            self.confidence[task] = max(confidence, self.confidence.get(task, 0.0))
        # One that failed is tried once more.
        if task in self._waiting and (answered or self.attempts[task] > 1):
            self._waiting.remove(task)
            self._work -= self.expected[task]

    def anything_left(self, now: float) -> bool:
        """Whether a free worker would have something to do."""
        return now < self.end and (bool(self._waiting) or self._least_sure(0, now) is not None)

    def slowness_of(self, worker: int) -> float:
        """Measured over expected seconds of `worker`, or of all where it has done nothing yet."""
        return self.slowness.get(worker, self._mean_slowness())

    def _seconds(self, task: str, worker: int) -> float:
        return self.expected[task] * self.slowness_of(worker)

    def _mean_slowness(self) -> float:
        return sum(self.slowness.values()) / len(self.slowness) if self.slowness else 1.0

    def _cap(self, task: str, worker: int, now: float) -> float:
        """Seconds that `task` may take, given what waits behind it."""
        # What the workers can still do, in seconds of slowness 1; one that is at work is free at its cap at the latest.
        mean = self._mean_slowness()
        capacity = sum(
            max(0.0, self.end - self._free_at(other, worker, now)) / self.slowness.get(other, mean)
            for other in range(self.workers)
            if other not in self.gone
        )
        work = self.expected[task] + self._work
        stretch = capacity / work
        # Where there is time for all, a task may take some of what is over: few take longer than expected. Half a task
        # per worker is kept, for the time left is in pieces. The longest is the first, behind those that failed.
        waiting = max((self.expected[other] for other in self._waiting[: self.workers + 1]), default=0.0)
        over = capacity - work - self.workers / 2 * waiting
        if over > 0:
            stretch = max(stretch, 1 + SLACK_SHARE * over / self.expected[task])
        stretch = min(MOST_STRETCH, stretch)
        # All stopped before any answer would be all in vain: rather some of them whole, and the last ones not at all.
        return max(stretch * self._seconds(task, worker), LEAST_STRETCH * self.least[task] * self.slowness_of(worker))

    def _free_at(self, other: int, worker: int, now: float) -> float:
        at_work = self.running.get(other)
        return now if other == worker or at_work is None else max(now, at_work.until)

    def _least_sure(self, worker: int, now: float) -> str | None:
        """The answered task that is least sure among those tried least often, if time is left for it."""
        busy = {assignment.task for assignment in self.running.values()}
        left = self.end - now
        open_tasks = [
            task
            for task, sure in self.confidence.items()
            if task not in busy
            and sure < 1.0
            and self.attempts[task] < self.passes
            and LEAST_SHARE * self._seconds(task, worker) <= left
        ]
        return min(open_tasks, key=lambda task: (self.attempts[task], self.confidence[task], task), default=None)
