"""How a run stands while it goes on: what is done, and what the rest is foreseen to take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.solve.pace import Pace
from harness.solve.simulation import foresee, uncertainty

_EVERY_S, _DRAWS = 10.0, 40  # of simulated runs, which take this process's time
_PAUSE = 50.0  # times the seconds of a look until the next one: workers wait for 2 % of the time at most


@dataclass(frozen=True)
class Progress:
    """How a run stands: tasks that are done, of how many, `again` in the second pass; workers at work, of how many;
    seconds of the latest tasks; seconds to the end, and until all are answered as foreseen (None: not yet); the
    probability that they are in time."""

    answered: int
    tasks: int
    again: int
    busy: int
    workers: int
    seconds: tuple[float, ...]
    left_s: float
    expected_s: float | None
    in_time: float | None


class Outlook:
    """Seconds until all tasks are answered, and the probability that this is in time; found anew every ten seconds, or
    less often where that takes long. `clock` measures how long, in seconds."""

    def __init__(self, pace: Pace, least: Mapping[str, float], clock: Callable[[], float] = time.perf_counter):
        self.pace, self.least, self.clock = pace, least, clock
        self.next_s = float("-inf")
        self.seen: tuple[float | None, float | None] = (None, None)

    def at(self, now: float, left: Mapping[str, float], end: float, slowness: Sequence[float]) -> tuple:
        """As seen at `now`: (seconds, probability) for the tasks `left`, with their expected seconds."""
        if now > self.next_s:
            began, self.seen = self.clock(), (0.0, 1.0)
            if left:
                unsure = uncertainty(self.pace, loaded=True)
                run = foresee(left, self.least, end - now, slowness, unsure, passes=1, draws=_DRAWS)
                self.seen = run.hours_mid * 3600, run.in_time
            self.next_s = now + max(_EVERY_S, _PAUSE * (self.clock() - began))
        return self.seen
