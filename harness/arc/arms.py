"""The arms: variants of test-time fine-tuning that are compared, each with one change from the one before."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.arc.augment import draw
from harness.arc.examples import ON_THE_FLY, SETS, Example, draw_question, shuffled
from harness.arc.mixture import COMBINE, PLAIN, Mixture, changed
from harness.arc.task import Task
from harness.errors import unknown

_DRAWN_WAYS = 4  # per example, where a mixture changes them


@dataclass(frozen=True)
class Arm:
    """`examples` is a name in harness.arc.examples.SETS, or None for no training; the other fields say how they vary.

    `geometry` and `colours` allow random turns and colour permutations; `keep_colours` is the probability that the
    colours stay. With a `mixture` each example is first changed in a way drawn from it (harness.arc.mixture).
    """

    name: str
    examples: str | None
    geometry: bool = False
    colours: bool = False
    keep_colours: float = 0.0
    mixture: Mixture = ()

    def pool(self, tasks: Sequence[Task], partners: Sequence[Task] = ()) -> list[Example]:
        """The arm's training examples, each once and in its plain view; tasks with one demonstration give none.

        With a mixture each comes in some drawn ways instead, so that lengths are the arm's own; what is combined is so
        with an example of `partners` (by default of `tasks`).
        """
        plain = self._unchanged(tasks)
        if not self.mixture:
            return plain
        rng, beside = random.Random(self.name), self._beside(partners or tasks)
        return [changed(example, self.mixture, beside, rng) for example in plain for _ in range(_DRAWN_WAYS)]

    def _beside(self, partners: Sequence[Task]) -> list[Example]:
        """What an example may be combined with; none where the arm combines nothing, for there may be thousands."""
        return self._unchanged(partners) if COMBINE in dict(self.mixture) else []

    def _unchanged(self, tasks: Sequence[Task]) -> list[Example]:
        return [example for task in tasks for example in SETS[self.examples](task)] if self.examples else []

    def stream(self, tasks: Sequence[Task], seed: int, partners: Sequence[Task] = ()) -> Iterator[Example]:
        """An endless stream of training examples, each in a random view; the same stream for the same seed.

        Every arm that trains shuffles the demonstrations of an example. `partners` as for `pool`.
        """
        rng = random.Random(f"{self.name} {seed}")
        beside = self._beside(partners or tasks)
        for example in self._drawn(tasks, rng):
            if self.mixture:
                example = changed(example, self.mixture, beside, rng)
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
            yield from shuffled(self._unchanged(tasks), rng)
            return
        # On the fly a question is drawn anew each time, so there is no pool; one demonstration must remain to be shown.
        for task in shuffled([task for task in tasks if len(task.demonstrations) > 1], rng):
            yield draw_question(task, rng)


def _half_changed(name: str, *changes: str) -> Arm:
    """The arm "+ color swap", half of its examples changed too: in one of `changes`, all alike likely."""
    mixture = ((PLAIN, float(len(changes))), *((change, 1.0) for change in changes))
    return Arm(name, "n-1", geometry=True, colours=True, mixture=mixture)


_CHANGES = ("scale", "tile", "mirror", "pad", COMBINE, "swap sides")

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
        # One change each, and then all of them.
        *(_half_changed(f"+ {change}", change) for change in _CHANGES),
        _half_changed("mixture", *_CHANGES),
    )
}

TABLE = list(ARMS)[: list(ARMS).index("on the fly")]  # "all": the published table's arms


def choose(text: str) -> list[Arm]:
    """The arms named by text like "all" or "baseline, n-1". Raises UserError for an unknown name."""
    names = TABLE if text.strip() == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise unknown("arm", text, ["all", *ARMS])
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, ["all", *ARMS])
    return [ARMS[name] for name in names]
