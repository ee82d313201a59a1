"""The variants of test-time fine-tuning that are compared, each one change after the one before."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.arc.augment import draw
from harness.arc.examples import ON_THE_FLY, SETS, Example, draw_question, shuffled
from harness.arc.task import Task
from harness.errors import unknown


@dataclass(frozen=True)
class Arm:
    """`examples` names one of harness.arc.examples.SETS, None for no training; the rest says how they are varied."""

    name: str
    examples: str | None
    geometry: bool = False
    colours: bool = False
    keep_colours: float = 0.0

    def pool(self, tasks: Sequence[Task]) -> list[Example]:
        """The examples that the arm can be trained on, each once, unvaried; none for tasks of one demonstration."""
        return [example for task in tasks for example in SETS[self.examples](task)] if self.examples else []

    def stream(self, tasks: Sequence[Task], seed: int) -> Iterator[Example]:
        """Training examples without end, each in a view of its own; the same ones for the same seed.

        The order of an example's demonstrations is varied in every arm that trains.
        """
        rng = random.Random(f"{self.name} {seed}")
        for example in self._drawn(tasks, rng):
            view = draw(
                rng,
                len(example.demonstrations),
                geometry=self.geometry,
                colours=self.colours,
                keep_colours=self.keep_colours,
            )
            yield example.seen(view)

    def _drawn(self, tasks: Sequence[Task], rng: random.Random) -> Iterator[Example]:
        if self.examples != ON_THE_FLY:
            yield from shuffled(self.pool(tasks), rng)
            return
        for task in shuffled([task for task in tasks if len(task.demonstrations) > 1], rng):
            yield draw_question(task, rng)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("baseline", None),
        Arm("n-1", "n-1"),
        Arm("+ geometric", "n-1", geometry=True),
        Arm("+ color swap", "n-1", geometry=True, colours=True),
        Arm("preserve color", "n-1", geometry=True, colours=True, keep_colours=0.5),
        Arm("n-2", "n-2", geometry=True, colours=True),
        Arm("on the fly", ON_THE_FLY, geometry=True, colours=True),
    )
}

TABLE = [name for name in ARMS if name != "on the fly"]  # "all": the published table's arms


def choose(text: str) -> list[Arm]:
    """The arms in "all" or "baseline, n-1". Raises UserError for a name that is none."""
    names = TABLE if text.strip() == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise unknown("arm", text, ["all", *ARMS])
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, ["all", *ARMS])
    return [ARMS[name] for name in names]
