"""The arms: variants of test-time fine-tuning that are compared, each with one change from the one before."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.arc.augment import draw
from harness.arc.examples import ON_THE_FLY, SETS, Example, draw_question, shuffled
from harness.arc.task import Task
from harness.errors import unknown


@dataclass(frozen=True)
class Arm:
    """`examples` is a name in harness.arc.examples.SETS, or None for no training; the other fields say how they vary.

    `geometry` and `colours` allow random turns and colour permutations; `keep_colours` is the probability that the
    colours stay.
    """

    name: str
    examples: str | None
    geometry: bool = False
    colours: bool = False
    keep_colours: float = 0.0

    def pool(self, tasks: Sequence[Task]) -> list[Example]:
        """The arm's training examples, each once and unvaried; tasks with one demonstration give none."""
        return [example for task in tasks for example in SETS[self.examples](task)] if self.examples else []

    def stream(self, tasks: Sequence[Task], seed: int) -> Iterator[Example]:
        """An endless stream of training examples, each in a random view; the same stream for the same seed.

        Every arm that trains shuffles the demonstrations of an example.
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
            yield example.in_view(view)

    def _drawn(self, tasks: Sequence[Task], rng: random.Random) -> Iterator[Example]:
        if self.examples != ON_THE_FLY:
            yield from shuffled(self.pool(tasks), rng)
            return
        # On the fly a question is drawn anew each time, so there is no pool; one demonstration must remain to be shown.
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
    """The arms named by text like "all" or "baseline, n-1". Raises UserError for an unknown name."""
    names = TABLE if text.strip() == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise unknown("arm", text, ["all", *ARMS])
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, ["all", *ARMS])
    return [ARMS[name] for name in names]
