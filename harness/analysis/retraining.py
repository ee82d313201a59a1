"""What another training seed changes: from the project's own record, and from repeats where there are some.

Fine-tunes that differ in their seed alone (order and views of the examples, the adapter's first values, the views that
are answered) end in other accuracies. A part of that is each task's own luck, which the spread over tasks has already;
what is common to all tasks is not in it, and is kept here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from harness.records.arm import SHARED, TASK, ArmResult, TuneSpec

# Of arc-tiny, by `python -m bench.retraining`: results/reference/retraining. Common to all tasks, beyond their own
# luck: (standard deviation of the accuracy, that of nats per grid relative to its mean, trainings, degrees of freedom).
RECORDED = {SHARED: (0.0176, 0.0527, 12, 10), TASK: (0.0, 0.0803, 10, 9)}
_ENOUGH = 9  # degrees of freedom that own repeats need to stand alone: few of them often show none at all


@dataclass(frozen=True)
class Noise:
    """Standard deviations over training seeds, common to all tasks: of the accuracy (0 to 1), and of nats per grid
    relative to its mean. `own` are the user's trainings and `recorded` those of the project's record that they come
    from, `freedom` their degrees of freedom."""

    accuracy: float
    nats: float
    own: int
    recorded: int = 0
    freedom: int = 0

    @property
    def sentence(self) -> str:
        sources = [f"{self.own} trainings here"] if self.own else []
        sources += [f"{self.recorded} of arc-tiny in this project's record"] if self.recorded else []
        return (
            f"Intervals and p include what another seed changes for all tasks at once, from {' and '.join(sources)}: "
            f"{100 * self.accuracy:.1f} points, {100 * self.nats:.1f} % of nats per grid (standard deviations)."
        )

    def of(self, row: ArmResult) -> float:
        """The standard deviation of the row's accuracy: an adapter that was never trained has none."""
        return self.accuracy if row.steps else 0.0


NONE = Noise(0.0, 0.0, 0)


def noise_for(results: Iterable[ArmResult], spec: TuneSpec) -> Noise:
    """The noise of retraining such a run: the project's record, and repeats of the same model and scope among
    `results`, each counted by its degrees of freedom; enough repeats stand alone."""
    accuracy, nats, trainings, freedom = RECORDED[spec.scope]
    recorded = Noise(accuracy, nats, 0, trainings, freedom)
    groups = repeats(row for row in results if row.spec.scope == spec.scope and row.spec.model.name == spec.model.name)
    if not groups:
        return recorded
    own = pooled(groups)
    if own.freedom >= _ENOUGH:
        return own
    both = own.freedom + freedom
    accuracy, nats = (
        math.sqrt((own.freedom * here**2 + freedom * there**2) / both)
        for here, there in ((own.accuracy, accuracy), (own.nats, nats))
    )
    return Noise(accuracy, nats, own.own, trainings, both)


def first_seeds(results: Iterable[ArmResult]) -> list[ArmResult]:
    """The results without repeats: of those that differ in their seed alone the one of the lowest seed."""
    lowest: dict[str, ArmResult] = {}
    kept = list(results)
    for row in kept:
        key = _but_for_seed(row)
        if row.ok and (key not in lowest or row.spec.seed < lowest[key].spec.seed):
            lowest[key] = row
    return [row for row in kept if not row.ok or lowest[_but_for_seed(row)] is row]


def repeats(results: Iterable[ArmResult]) -> list[list[ArmResult]]:
    """The trained results in groups that differ in their seed alone, of two seeds or more."""
    groups: dict[str, dict[int, ArmResult]] = {}
    for row in results:
        if row.ok and row.steps:
            groups.setdefault(_but_for_seed(row), {})[row.spec.seed] = row
    return [list(seeds.values()) for seeds in groups.values() if len(seeds) > 1]


def _but_for_seed(row: ArmResult) -> str:
    return replace(row.spec, seed=0).key(row.arm, row.versions, row.environment)


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
    return Noise(math.sqrt(accuracy / freedom), math.sqrt(nats / freedom), sum(map(len, groups)), 0, freedom)


def _common(values: Sequence[Sequence[float]]) -> float:
    """The variance over seeds that all tasks share: that of the means, less what the tasks' own luck gives them.

    `values` are [seeds, tasks]. A random-effects analysis of variance with seeds as the factor; never below 0.
    """
    tasks = len(values[0])
    luck = fmean(variance(by_seed) for by_seed in zip(*values, strict=True)) / tasks
    return max(0.0, variance([fmean(by_task) for by_task in values]) - luck)
