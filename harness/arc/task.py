"""An ARC task: grids, demonstrations and test inputs. Solutions are kept apart."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness import limits

Grid = tuple[tuple[int, ...], ...]  # rows of colours 0 to 9, 1 to 30 cells per side
Solutions = dict[str, tuple[Grid, ...]]  # per task: one output per test input
LARGEST = 30


@dataclass(frozen=True)
class Pair:
    """A demonstration: an input grid and its output."""

    input: Grid
    output: Grid


@dataclass(frozen=True)
class Task:
    id: str
    demonstrations: tuple[Pair, ...]
    test_inputs: tuple[Grid, ...]

    @property
    def grids(self) -> list[Grid]:
        """All grids that a solver sees; the test outputs are not among them."""
        return [grid for pair in self.demonstrations for grid in (pair.input, pair.output)] + list(self.test_inputs)

    @property
    def cells(self) -> int:
        """The number of cells that a solver sees; the prompt's length grows with it."""
        return sum(len(grid) * len(grid[0]) for grid in self.grids)


def within(tasks: Sequence[Task], limit: int) -> list[Task]:
    """The tasks without a visible grid of more than `limit` cells per side."""
    return [task for task in tasks if all(len(g) <= limit and len(g[0]) <= limit for g in task.grids)]


def subset(tasks: Sequence[Task], count: int, seed: int = 0) -> list[Task]:
    """A sample of `count` tasks, one from each of `count` equal strata of length; the same for the same seed.

    Strata keep the sample fair: a model that only fits short prompts cannot be lucky. Raises UserError for a count
    below 1.
    """
    limits.within("--tasks", count, limits.Tasks)
    # The id breaks ties, so that the order of the files does not matter.
    ordered = sorted(tasks, key=lambda task: (task.cells, task.id))
    count = min(count, len(ordered))
    rng = random.Random(seed)
    edges = [len(ordered) * i // count for i in range(count + 1)]
    return [ordered[rng.randrange(low, high)] for low, high in pairwise(edges)]
