"""How much of a set of tasks fits a context: the share that a run can train on, and answer, at all."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.arc.examples import leave_one_out, questions
from harness.arc.prompt import estimated_tokens
from harness.arc.task import Grid, Pair, Task

Measure = Callable[[Sequence[Pair], Grid, Grid | None], int]


@dataclass(frozen=True)
class Lengths:
    """Token counts of one kind of sequence over a set: `name` says which."""

    name: str
    tokens: tuple[int, ...]

    @property
    def mean(self) -> float:
        return fmean(self.tokens)

    def quantile(self, share: float) -> int:
        """The smallest count that at least `share` of the sequences do not pass."""
        return sorted(self.tokens)[max(0, math.ceil(share * len(self.tokens)) - 1)]

    def coverage(self, context: int) -> float:
        """Share of the sequences of at most `context` tokens."""
        return sum(count <= context for count in self.tokens) / len(self.tokens)


def lengths(tasks: Sequence[Task], measure: Measure = estimated_tokens) -> list[Lengths]:
    """The test questions (without their answers, which nobody has) and the leave-one-out examples (with theirs)."""
    asked = tuple(measure(shown, grid, None) for task in tasks for shown, grid in questions(task))
    examples = tuple(measure(e.demonstrations, e.test_input, e.output) for task in tasks for e in leave_one_out(task))
    return [Lengths("test questions", asked), *([Lengths("leave-one-out", examples)] if examples else [])]
