"""What another training seed changes: measured from repeats where there are some, else from the project's own record.

Fine-tunes that differ in their seed alone (order and views of the examples, the adapter's first values, the views that
are answered) end in other accuracies. A part of that is each task's own luck, which the spread over tasks has already;
what is common to all tasks is not in it, and is kept here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from harness.records.arm import SHARED, TASK, ArmResult

# Ten seeds of arc-tiny each, `python -m bench.retraining`: results/reference/retraining. Common to all tasks, beyond
# their own luck: (standard deviation of the accuracy, that of nats per grid relative to its mean).
RECORDED = {SHARED: (0.0, 0.0), TASK: (0.0, 0.0)}


@dataclass(frozen=True)
class Noise:
    """Standard deviations over training seeds, common to all tasks: of the accuracy (0 to 1), and of nats per grid
    relative to its mean. `seeds` is how many were trained, and `own` whether these are the user's repeats."""

    accuracy: float
    nats: float
    seeds: int
    own: bool

    @property
    def sentence(self) -> str:
        whose = f"{self.seeds} trainings here" if self.own else f"{self.seeds} seeds of arc-tiny, this project's record"
        return (
            f"Intervals and p include what another seed changes for all tasks at once, from {whose}: "
            f"{100 * self.accuracy:.1f} points, {100 * self.nats:.1f} % of nats per grid (standard deviations)."
        )


NONE = Noise(0.0, 0.0, 0, False)


def noise_for(results: Iterable[ArmResult], scope: str) -> Noise:
    """The noise of retraining with such a `scope`: from repeats among `results` where there are, pooled over arms."""
    groups = [group for group in repeats(results) if group[0].spec.scope == scope]
    if groups:
        return pooled(groups)
    accuracy, nats = RECORDED[scope]
    return Noise(accuracy, nats, 10, False)


def repeats(results: Iterable[ArmResult]) -> list[list[ArmResult]]:
    """The trained results in groups that differ in their seed alone, of two seeds or more."""
    groups: dict[str, dict[int, ArmResult]] = {}
    for row in results:
        if row.ok and row.steps:
            key = replace(row.spec, seed=0).key(row.arm, row.versions, row.environment)
            groups.setdefault(key, {})[row.spec.seed] = row
    return [list(seeds.values()) for seeds in groups.values() if len(seeds) > 1]


def pooled(groups: Sequence[Sequence[ArmResult]]) -> Noise:
    """The noise over groups of repeats, each counted by its degrees of freedom. Raises ValueError without groups."""
    return noise_of([[(row.by_task, row.nats_by_task()) for row in group] for group in groups])


def noise_of(groups: Sequence[Sequence[tuple[Sequence[float], Mapping[str, float]]]]) -> Noise:
    """As `pooled`, of (share solved of each task, nats per grid by task) per seed."""
    if not groups:
        raise ValueError("no repeats")
    freedom = sum(len(group) - 1 for group in groups)
    accuracy = sum((len(group) - 1) * _common([solved for solved, _ in group]) for group in groups)
    nats = 0.0
    for group in groups:
        losses = [own for _, own in group]
        names = [name for name in losses[0] if all(name in own and math.isfinite(own[name]) for own in losses)]
        if len(names) > 1 and (level := fmean(own[name] for own in losses for name in names)):
            nats += (len(group) - 1) * _common([[own[name] / level for name in names] for own in losses])
    return Noise(math.sqrt(accuracy / freedom), math.sqrt(nats / freedom), sum(map(len, groups)), True)


def _common(values: Sequence[Sequence[float]]) -> float:
    """The variance over seeds that all tasks share: that of the means, less what the tasks' own luck gives them.

    `values` are [seeds, tasks]. A random-effects analysis of variance with seeds as the factor; never below 0.
    """
    tasks = len(values[0])
    luck = fmean(variance(by_seed) for by_seed in zip(*values, strict=True)) / tasks
    return max(0.0, variance([fmean(by_task) for by_task in values]) - luck)
