"""A run before it begins: many draws of what tasks, workers and start-ups may take, each through the real scheduler."""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.solve.pace import Pace
from harness.solve.schedule import Scheduler

DRAWS = 1000
_LEAST_DRAWS, _MOST_TASKS = 100, 100_000  # simulated tasks of all draws together: the start waits for them
_WORKER_SIGMA = 0.03  # between cards of one kind


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Standard deviations of logarithms: of all seconds together (a prediction's, or a measurement's drift), of a
    worker's, and of a single task's. `startup_s` is the range of a worker's start-up."""

    common: float
    worker: float
    task: float
    startup_s: tuple[float, float]


@dataclass(frozen=True)
class Foreseen:
    """Hours until every task was answered once (2.5 %, median, 97.5 %), and shares of the draws.

    `in_time` is the probability that every task is answered before the end, `whole` that none of them was cut at its
    cap; `unused` the mean share of the workers' time that no task filled, with two passes at most.
    """

    hours_low: float
    hours_mid: float
    hours_high: float
    in_time: float
    whole: float
    unused: float

    def sentence(self, tasks: int) -> str:
        """What it says of `tasks` tasks, for a line of its own."""
        hours = " to ".join(map(_duration, (self.hours_low, self.hours_high)))
        answered, whole = _odds(self.in_time), _odds(self.whole)
        return (
            f"{tasks} tasks: {_duration(self.hours_mid)} ({hours}), {answered} that all are answered in time, "
            f"{whole} that none is cut short for it"
        )


def uncertainty(pace: Pace, loaded: bool = False) -> Uncertainty:
    """The uncertainty of a run at this pace, before workers have `loaded` the model, or after."""
    startup = (0.0, 0.0) if loaded else (0.7 * pace.load_s, 2.0 * pace.load_s)
    return Uncertainty(common=pace.common_sigma, worker=_WORKER_SIGMA, task=pace.task_sigma, startup_s=startup)


def _odds(share: float) -> str:
    """A share of the draws, which are too few to be sure by."""
    if share > 0.99:
        return "over 99 %"
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


@dataclass(frozen=True)
class Draw:
    """One simulated run: seconds until all tasks were answered, how many were not and were cut, the share unused, and
    when the last worker ended."""

    answered_s: float
    missed: int
    cut: int
    unused: float
    ended_s: float


def foresee(
    expected: Mapping[str, float],
    least: Mapping[str, float],
    end_s: float,
    workers: Sequence[float],
    uncertainty: Uncertainty,
    passes: int = 2,
    draws: int = DRAWS,
) -> Foreseen:
    """What `draws` runs of tasks that take `expected` seconds come to, before `end_s`; `workers` are slownesses, and
    the queue has as many `passes` as there is time for. Of many tasks there are fewer draws.

    A task that is stopped before `least` seconds has no answer.

    Hours are as if there were no end, so that they say what a longer budget would need.
    """
    rng = random.Random(0)
    draws = min(draws, max(_LEAST_DRAWS, _MOST_TASKS // max(1, len(expected))))
    # Hours and odds are of the first pass, which no later one changes.
    runs = [draw(expected, least, end_s, workers, uncertainty, rng, passes=1) for _ in range(draws)]
    filled = runs
    if passes > 1:
        filled = [draw(expected, least, end_s, workers, uncertainty, rng) for _ in range(max(1, draws // 20))]
    # Without an end: how long the work itself takes, which a budget is compared with.
    free = sorted(
        draw(expected, least, float("inf"), workers, uncertainty, rng, passes=1).answered_s / 3600
        for _ in range(max(1, draws // 4))
    )
    low, mid, high = (free[round(share * (len(free) - 1))] for share in (0.025, 0.5, 0.975))
    return Foreseen(
        hours_low=low,
        hours_mid=mid,
        hours_high=high,
        in_time=fmean(run.missed == 0 for run in runs),
        whole=fmean(run.missed == 0 and run.cut == 0 for run in runs),
        unused=fmean(run.unused for run in filled),
    )


def draw(
    expected: Mapping[str, float],
    least: Mapping[str, float],
    end_s: float,
    workers: Sequence[float],
    uncertainty: Uncertainty,
    rng: random.Random,
    passes: int = 2,
) -> Draw:
    """One run. Further passes go on until the end, where there is one."""
    common = rng.lognormvariate(0.0, uncertainty.common)
    slow = [slowness * common * rng.lognormvariate(0.0, uncertainty.worker) for slowness in workers]
    takes = {task: seconds * rng.lognormvariate(0.0, uncertainty.task) for task, seconds in expected.items()}
    scheduler = Scheduler(expected, least, end_s, len(workers), passes)
    starts = [rng.uniform(*uncertainty.startup_s) for _ in workers]
    free = [(start, worker) for worker, start in enumerate(starts)]
    heapq.heapify(free)
    answered: dict[str, float] = {}
    cut, busy, ended = 0, 0.0, 0.0
    begun: dict[int, float] = {}
    while free:
        now, worker = heapq.heappop(free)
        if worker in begun:
            task = scheduler.running[worker].task
            scheduler.done(worker, now - begun.pop(worker), rng.random())
            answered.setdefault(task, now)
        if len(answered) == len(expected) and end_s == float("inf"):
            continue
        assignment = scheduler.next(worker, now)
        if assignment is None:
            continue
        needs = takes[assignment.task] * slow[worker]
        spent = min(needs, assignment.until - now)
        ended = max(ended, now + spent)
        first = assignment.attempt == 1
        if first and spent < min(needs, least[assignment.task] * slow[worker]):
            # Too little for any answer: the time is gone all the same.
            scheduler.running.pop(worker)
            busy += spent
            if now + spent < end_s:
                heapq.heappush(free, (now + spent, worker))
            continue
        cut += first and spent < needs
        busy += spent
        begun[worker] = now
        heapq.heappush(free, (now + spent, worker))
    whole = sum(max(0.0, end_s - start) for start in starts)
    last = max(answered.values(), default=0.0)
    unused = 0.0 if end_s == float("inf") or not whole else 1 - busy / whole
    return Draw(last, len(expected) - len(answered), cut, unused, ended)
