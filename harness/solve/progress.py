"""How a run stands while it goes on: what is done, and what the rest is foreseen to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.solve.pace import Pace
from harness.solve.simulation import foresee, uncertainty

_EVERY_S, _DRAWS = 10.0, 40  # of simulated runs, which take this process's time


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
    """Seconds until all tasks are answered, and the probability that this is in time; found anew every ten seconds."""

    def __init__(self, pace: Pace, least: Mapping[str, float], passes: int):
        self.pace, self.least, self.passes = pace, least, passes
        self.looked_s = float("-inf")
        self.seen: tuple[float | None, float | None] = (None, None)

    def at(self, now: float, left: Mapping[str, float], end: float, slowness: Sequence[float]) -> tuple:
        """As seen at `now`: (seconds, probability) for the tasks `left`, with their expected seconds."""
        if now - self.looked_s > _EVERY_S:
            self.looked_s, self.seen = now, (0.0, 1.0)
            if left:
                unsure = uncertainty(self.pace, loaded=True)
                run = foresee(left, self.least, end - now, slowness, unsure, self.passes, _DRAWS)
                self.seen = run.hours_mid * 3600, run.in_time
        return self.seen
