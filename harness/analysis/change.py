"""How one record stands against an earlier one: ratios of seconds and of memory, differences of accuracy.

A ratio's logarithm has the sampling errors of both means in it and, twice, the drift of the device, for both records
are short samples (harness.analysis.drift). Over the cells of two runs the geometric mean has less sampling error, but
all of the drift: a machine that was slow that hour may have been slow for every cell.

Three sweeps of 36 cells on one CPU within three hours: a cell's seconds differed by 5 to 7 % (standard deviation of the
logarithm of the ratio), the geometric means by 1 to 2 %, a cell's peak memory by 1.3 to 1.8 %.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean
from typing import Any

from harness.analysis import matching
from harness.analysis.comparison import Comparison, compare, holm_adjusted
from harness.analysis.drift import CPU, drift
from harness.analysis.matching import Matching
from harness.analysis.projection import half_width, step_seconds
from harness.analysis.retraining import noise_for
from harness.records.arm import ArmResult
from harness.records.measurement import CROWDED, Measurement

SECONDS, MEMORY, NATS, ACCURACY = "seconds per step", "peak memory", "nats per grid", "tasks solved"
# Standard deviation of a row's peak memory, relative to it: measured on a CPU (above), assumed on a card, whose
# allocator takes whole blocks.
_MEMORY_SCATTER = 0.012
_CARD_SCATTER = 0.005
Z95 = NormalDist().inv_cdf(0.975)
Pair = tuple[Measurement | ArmResult, Measurement | ArmResult]
_WIDEST = 3.0  # half width of the logarithm of a ratio: with a wider one nothing is known
_LEAST_LEVEL = 1e-6  # of a ratio of losses, whose difference may take off all that there was
_FARTHEST = 1e300  # of a ratio, either way: its interval is then still finite


@dataclass(frozen=True, kw_only=True)
class Change:
    """One quantity of one cell or arm, `before` and `after`.

    `middle` is the ratio after / before, of accuracies (0 to 1) the difference; `deviation` is the standard deviation
    of the ratio's logarithm, or of the difference. `crowded`: one was timed while others used the cores.
    """

    what: str
    row: Measurement | ArmResult  # as it was before
    counterpart: Measurement | ArmResult
    before: float
    after: float
    middle: float
    low: float
    high: float
    deviation: float
    common: float = 0.0  # the part of `deviation` that all cells of both runs may share
    p: float | None = None  # for the number of all p
    crowded: bool = False

    @property
    def worse(self) -> float:
        """By how much it is worse: the logarithm of the ratio, or how much less accurate; negative where better."""
        return -self.middle if self.what == ACCURACY else math.log(self.middle)

    @property
    def surely_worse(self) -> float:
        """The same at the interval's end that is best."""
        return -self.high if self.what == ACCURACY else math.log(self.low)


@dataclass(frozen=True, kw_only=True)
class Overall:
    """The geometric mean of `cells` ratios with its 95 % interval; `other_devices`: of cells on different devices."""

    what: str
    cells: int
    low: float
    middle: float
    high: float

    @property
    def told_apart(self) -> bool:
        return not self.low <= 1 <= self.high


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What changed between two records.

    `failed` ran before and do not now, `mended` the other way round. Not compared, though both ran: `untimed`, whose
    samples give no interval of their seconds; `unpeaked`, without a peak of memory in both; `unread`, arms without
    losses in common. Of these `diverged` had losses before that are no numbers now.
    """

    cells: Matching[Measurement]
    arms: Matching[ArmResult]
    same_device: list[Change]
    other_devices: list[Change]
    failed: list[Pair] = field(default_factory=list)
    mended: list[Pair] = field(default_factory=list)
    untimed: list[Pair] = field(default_factory=list)
    unpeaked: list[Pair] = field(default_factory=list)
    unread: list[Pair] = field(default_factory=list)

    @property
    def lost(self) -> list[Measurement | ArmResult]:
        """What ran before and is not in the later record at all."""
        rows: list[Measurement | ArmResult] = [*self.cells.only_before, *self.arms.only_before]
        return [row for row in rows if row.ok]

    @property
    def diverged(self) -> list[Pair]:
        return [pair for pair in self.unread if has_losses(pair[0]) and not has_losses(pair[1])]

    @property
    def nothing_in_common(self) -> bool:
        return not any((self.cells.pairs, self.cells.other_devices, self.arms.pairs, self.arms.other_devices))


def changes(
    before: tuple[Sequence[Measurement], Sequence[ArmResult]],
    after: tuple[Sequence[Measurement], Sequence[ArmResult]],
    own_drift: float | None = None,
) -> Changes:
    """How the record `after` stands against `before`; `own_drift` is the standard deviation between two runs of this
    machine, where that is known, instead of the project's."""
    cells, arms = matching.cells(before[0], after[0]), matching.arms(before[1], after[1])
    results = [*before[1], *after[1]]
    of_cells, of_arms = [*cells.pairs, *cells.other_devices], [*arms.pairs, *arms.other_devices]
    every: list[Pair] = [*of_cells, *of_arms]
    made = [
        _of_cells(cells_there, own_drift) + _of_arms(arms_there, results)
        for cells_there, arms_there in ((cells.pairs, arms.pairs), (cells.other_devices, arms.other_devices))
    ]
    compared = {(change.what, id(change.row)) for own in made for change in own}

    def left_out(pairs: Sequence[Any], what: str) -> list[Pair]:
        return [(a, b) for a, b in pairs if a.ok and b.ok and (what, id(a)) not in compared]

    return Changes(
        cells=cells,
        arms=arms,
        same_device=made[0],
        other_devices=made[1],
        failed=[pair for pair in every if pair[0].ok and not pair[1].ok],
        mended=[pair for pair in every if pair[1].ok and not pair[0].ok],
        untimed=left_out(of_cells, SECONDS),
        unpeaked=left_out(of_cells, MEMORY),
        unread=left_out(of_arms, NATS),
    )


def overall(listed: Iterable[Change], what: str) -> Overall | None:
    """The geometric mean of the ratios of `what`, without what was timed beside others; None without any.

    Sampling errors average out over the cells; drift does not.
    """
    own = [change for change in listed if change.what == what and not change.crowded]
    if not own:
        return None
    sampling = [max(0.0, change.deviation**2 - change.common**2) for change in own]
    deviation = math.hypot(fmean(change.common for change in own), math.sqrt(sum(sampling)) / len(own))
    middle = fmean(math.log(change.middle) for change in own)
    low, mid, high = (math.exp(middle + side * Z95 * deviation) for side in (-1, 0, 1))
    return Overall(what=what, cells=len(own), low=low, middle=mid, high=high)


def _of_cells(pairs: Sequence[tuple[Measurement, Measurement]], own_drift: float | None) -> list[Change]:
    """Seconds and memory of the pairs that ran in both, where the samples give an interval."""
    made = []
    for before, after in pairs:
        if not (before.ok and after.ok):
            continue
        drifts = math.hypot(drift(before), drift(after)) if own_drift is None else own_drift
        deviation = math.hypot(_sampling(before), _sampling(after), drifts)
        if deviation * Z95 < _WIDEST:
            crowded = any(CROWDED in row.notes for row in (before, after))
            seconds = step_seconds(before), step_seconds(after)
            made.append(_ratio(SECONDS, (before, after), seconds, deviation, common=drifts, crowded=crowded))
        if before.peak_bytes and after.peak_bytes:
            peaks = float(before.peak_bytes), float(after.peak_bytes)
            made.append(_ratio(MEMORY, (before, after), peaks, math.hypot(_scatter(before), _scatter(after))))
    return made


def has_losses(row: Measurement | ArmResult) -> bool:
    """Whether a fine-tune's losses are there, and are numbers."""
    return bool(row.answer_losses) and all(math.isfinite(loss) for loss, _ in row.answer_losses)  # type: ignore[union-attr]


def _of_arms(pairs: Sequence[tuple[ArmResult, ArmResult]], results: Sequence[ArmResult]) -> list[Change]:
    """Nats per grid and accuracy of the arms that ran in both; what another seed changes comes from `results`."""
    ran = [(before, after) for before, after in pairs if before.ok and after.ok]
    compared = holm_adjusted([compare(*pair, noise_for(results, pair[0].spec)) for pair in ran])
    return [change for own in compared for change in _of_arm(own)]


def _of_arm(own: Comparison) -> list[Change]:
    made: list[Change] = []
    pair: dict[str, Any] = {"row": own.first, "counterpart": own.second}
    losses, later = own.first.nats_by_task(), own.second.nats_by_task()
    common = [losses[name] for name in losses if math.isfinite(losses[name] + later.get(name, math.inf))]
    # A loss that is no number, or negative, is no basis of a ratio.
    if own.nats and (level := fmean(common)) > 0 and all(map(math.isfinite, (level, *own.nats))):
        low, middle, high = (max(_LEAST_LEVEL, 1 + nats / level) for nats in own.nats)
        deviation = math.log(high / low) / (2 * Z95)
        made.append(
            Change(what=NATS, **pair, before=level, after=level * middle, low=low, middle=middle, high=high,
                   deviation=deviation, p=own.nats_holm)
        )  # fmt: skip
    low, middle, high = own.gain
    accuracies = own.first.mean("attempts"), own.second.mean("attempts")
    made.append(
        Change(what=ACCURACY, **pair, before=accuracies[0], after=accuracies[1], low=low, middle=middle, high=high,
               deviation=(high - low) / (2 * Z95), p=own.solved_holm)
    )  # fmt: skip
    return made


def _ratio(
    what: str, pair: tuple[Measurement, Measurement], values: tuple[float, float], deviation: float, **more: Any
) -> Change:
    before, after = values
    middle, wide = min(_FARTHEST, max(1 / _FARTHEST, after / before)), math.exp(Z95 * deviation)
    return Change(what=what, row=pair[0], counterpart=pair[1], before=before, after=after, middle=middle,
                  low=middle / wide, high=middle * wide, deviation=deviation, **more)  # fmt: skip


def _sampling(row: Measurement) -> float:
    """The standard deviation of the mean step by its samples alone, relative to it."""
    return half_width(row.micro_s, row.optimizer_s, row.cell.recipe.micro_steps_per_step, 0.0) / Z95


def _scatter(row: Measurement) -> float:
    return _MEMORY_SCATTER if row.cell.device.partition(":")[0] == CPU else _CARD_SCATTER
