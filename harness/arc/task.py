"""An ARC task: grids, demonstrations, and what is to be predicted; the solutions are kept apart."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.errors import UserError

Grid = tuple[tuple[int, ...], ...]  # rows of colours 0 to 9, 1 to 30 a side
Solutions = dict[str, tuple[Grid, ...]]  # by task: one output a test input
LARGEST = 30


@dataclass(frozen=True)
class Pair:
    """A demonstration: what goes in and what must come out."""

    input: Grid
    output: Grid


@dataclass(frozen=True)
class Task:
    id: str
    demonstrations: tuple[Pair, ...]
    test_inputs: tuple[Grid, ...]

    @property
    def grids(self) -> list[Grid]:
        """Every grid that is shown: the test outputs are not among them."""
        return [grid for pair in self.demonstrations for grid in (pair.input, pair.output)] + list(self.test_inputs)

    @property
    def cells(self) -> int:
        """Cells of every grid that is shown: what the prompt's length grows with."""
        return sum(len(grid) * len(grid[0]) for grid in self.grids)


def within(tasks: Sequence[Task], limit: int) -> list[Task]:
    """The tasks of which no grid that is shown has more than `limit` cells a side."""
    return [task for task in tasks if all(len(g) <= limit and len(g[0]) <= limit for g in task.grids)]


def subset(tasks: Sequence[Task], count: int, seed: int = 0) -> list[Task]:
    """`count` of the tasks, from short to long in equal strata, one drawn from each: the same for the same seed.

    A model that only fits short prompts cannot look good by the luck of the draw. Raises UserError for a count of none.
    """
    if count < 1:
        raise UserError(f"--tasks must be 1 or more, not {count}")
    ordered = sorted(tasks, key=lambda task: (task.cells, task.id))
    count = min(count, len(ordered))
    rng = random.Random(seed)
    edges = [len(ordered) * i // count for i in range(count + 1)]
    return [ordered[rng.randrange(low, high)] for low, high in pairwise(edges)]
