"""Which candidate to take: speed and accuracy brought together, under one budget for everything.

The budget pays for loading, training and answering; training is over ARC's lengths, those beyond the cell's context
dropped. Three things are kept apart: the accuracy measured after a few steps, the chance of being the best of all
candidates on such tasks, and the accuracy projected to the steps that the budget allows, as an interval or refused
with its reason. A candidate without a measured accuracy is given none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from harness.analysis.learning_curve import Estimate, accuracy_after, chance_of_best
from harness.analysis.projection import Projection, project
from harness.analysis.stats import mcnemar, paired_difference, wilson
from harness.analysis.token_curve import ArcHours, TokenCurve, arc_hours, curve_key, fit_curves
from harness.analysis.verdict import WHOLE_SHARE, fits
from harness.arc.lengths import PUBLISHED
from harness.catalog import trainable
from harness.records.arm import ArmResult
from harness.records.cell import OPTIMIZED, Goal
from harness.records.measurement import Measurement

_HALF = 0.5  # of ARC's sequences: a context that admits fewer is of little use
_TIED = 0.05  # two candidates whose difference has a larger p are not told apart


@dataclass(frozen=True)
class Candidate:
    """A measured cell with the accuracy of its model and precision; hours for everything, 95 %.

    `training` is of full contexts; `arc` over ARC's lengths, None where none is so short or no FLOPs were counted: its
    hours are then of full contexts. `inference_h` is the measured decoding time for as many tasks as are to be
    answered, None where none was measured. `steps` are those that the budget allows, at most the goal's.
    """

    row: Measurement
    training: Projection
    arc: ArcHours | None
    inference_h: float | None
    steps: int
    result: ArmResult | None = None
    baseline: ArmResult | None = None
    estimate: Estimate | None = None
    chance: float | None = None

    @property
    def name(self) -> str:
        return f"{self.row.cell.model.name} {self.row.cell.precision}"

    @property
    def subject(self) -> tuple[str, str, str]:
        """Model, precision and weights: with other weights it is another candidate."""
        cell = self.row.cell
        return cell.model.name, cell.precision, cell.weights

    @property
    def hours_high(self) -> float:
        return (self.arc or self.training).hours_high + (self.inference_h or 0.0)

    @property
    def hours_mid(self) -> float:
        return (self.arc or self.training).hours_mid + (self.inference_h or 0.0)

    def fits(self, goal: Goal) -> bool:
        """Whether everything is done within the budget."""
        return fits(self.hours_high, goal.budget_hours, WHOLE_SHARE)


@dataclass(frozen=True)
class Ranking:
    """Candidates that fit, the best first, those that do not, and the sentences that say why."""

    fits: tuple[Candidate, ...]
    too_slow: tuple[Candidate, ...]
    tied: tuple[Candidate, ...]
    why: str


def candidates(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal) -> list[Candidate]:
    """Every measured cell, with the accuracy that was measured for its model, precision and weights, if any."""
    # A loss that is no number is no training. Reference steps are there to compare, unless they are all that there is.
    trained = [row for row in rows if row.ok and all(map(isfinite, row.losses)) and not _refused(row)]
    trained = [row for row in trained if row.cell.recipe.implementation == OPTIMIZED] or trained
    curves = fit_curves(rows)
    comparable = comparable_results(results)
    measured = [_candidate(row, curves[curve_key(row)], comparable, goal) for row in trained]
    # A model's cells have one accuracy, so it counts once.
    compared = {c.subject: c.result.by_task for c in measured if c.result}
    chances = chance_of_best(compared) if len(compared) > 1 else {}
    return [replace(c, chance=chances.get(c.subject)) for c in measured] if chances else measured


def left_out(rows: Sequence[Measurement]) -> list[str]:
    """A sentence per measured cell that is no candidate, for real weights cannot be trained so."""
    names = {f"{row.cell.model.name} {row.cell.precision}": _refused(row) for row in rows if row.ok and _refused(row)}
    return [f"{name} is no candidate: {why}." for name, why in names.items()]


def _refused(row: Measurement) -> str:
    return trainable.overflow(row.cell.model, row.cell.compute_dtype)


def comparable_results(results: Sequence[ArmResult]) -> list[ArmResult]:
    """The results on the tasks that most candidates answered; of several such sets the one that ran last."""
    groups: dict[tuple, list[ArmResult]] = {}
    for result in (row for row in results if row.ok):
        groups.setdefault(result.spec.comparison_key, []).append(result)
    if not groups:
        return []

    def importance(group: list[ArmResult]) -> tuple[int, str]:
        return len({subject(result) for result in group}), max(result.started for result in group)

    return max(groups.values(), key=importance)


def interval(result: ArmResult) -> tuple[float, float]:
    """Wilson's 95 % interval of the measured accuracy."""
    return wilson(sum(result.by_task), len(result.scores))


def subject(result: ArmResult) -> tuple[str, str, str]:
    """The model, precision and weights of a result."""
    return result.spec.model.name, result.spec.precision, result.spec.weights


def best_arm(results: Sequence[ArmResult]) -> ArmResult:
    """The best of one candidate's arms: most steps, then the highest accuracy, then one with a learning curve (it can
    be projected), then the lowest loss."""
    return max(results, key=lambda r: (r.steps, r.mean("attempts"), bool(r.curve_points), -(r.token_loss or 0.0)))


def _candidate(row: Measurement, curve: TokenCurve | None, results: Sequence[ArmResult], goal: Goal) -> Candidate:
    cell = row.cell
    # Weights count too: an accuracy is never carried over to others.
    own = [r for r in results if subject(r) == (cell.model.name, cell.precision, cell.weights)]
    result = best_arm(own) if own else None
    inference_h = result.decode_s_per_task * goal.test_tasks / 3600 if result else None
    # Steps that end within the budget after the load and before the answers, at the slow end of the interval.
    training = project(row, goal.steps)
    arc = arc_hours(curve, row, cell.context, goal.steps) if curve else None
    left_h = goal.budget_hours - (inference_h or 0.0)
    steps = min(goal.steps, _steps_within(arc or training, training.fixed_h, goal.steps, left_h))
    return Candidate(
        row=row,
        training=training,
        arc=arc,
        inference_h=inference_h,
        steps=steps,
        result=result,
        baseline=next((r for r in own if r.steps == 0), None),
        estimate=accuracy_after(result.curve_points, steps) if result and steps else None,
    )


def _steps_within(hours: Projection | ArcHours, fixed_h: float, steps: int, budget_hours: float) -> int:
    """Of the `steps` that take `hours`, those that end within the budget at the slow end; may be more than `steps`.

    `fixed_h` of the hours do not depend on the steps.
    """
    return max(0, int(steps * (budget_hours - fixed_h) / (hours.hours_high - fixed_h)))


def rank_candidates(measured: Sequence[Candidate], goal: Goal) -> Ranking:
    """The candidates ranked: those that fit the budget with all steps, by accuracy where there is one.

    By the projected accuracy where every candidate with an accuracy has a projection, else by the measured one; those
    whose accuracy was not measured come after, the largest model first. One cell per model and precision: the longest
    context that fits.
    """
    # One cell per model and precision: of those that fit the longest context.
    slow = tuple(sorted((c for c in measured if not c.fits(goal)), key=lambda c: c.hours_high))
    fitting = sorted((c for c in measured if c.fits(goal)), key=lambda c: c.row.cell.context)
    longest = {c.subject: c for c in fitting}  # the last of each subject stays
    # By accuracy, or by size.
    scored = [c for c in longest.values() if c.result]
    projected = bool(scored) and all(c.estimate and not c.estimate.refused for c in scored)
    scored.sort(key=lambda c: (-_accuracy(c, projected), -_accuracy(c), c.hours_high))
    others = sorted((c for c in longest.values() if not c.result), key=lambda c: (-(c.row.params or 0), c.hours_high))
    tied = tuple(c for c in scored[1:] if not _told_apart(scored[0], c))
    if not longest:
        why = _none(slow, goal)
    else:
        why = _why(scored, tied, projected, goal) if scored else _by_size(others, goal)
    return Ranking((*scored, *others), slow, tied, why)


def _by_size(fitting: Sequence[Candidate], goal: Goal) -> str:
    """Names the largest model, at a context that admits half of ARC's sequences if any such fits.

    Among the cells of that model the longest context wins, then the fewest hours.
    """

    def useful(candidate: Candidate) -> bool:
        return PUBLISHED.coverage(candidate.row.cell.context) >= _HALF

    best = max(fitting, key=lambda c: (useful(c), c.row.params or 0, c.row.cell.context, -c.hours_mid))
    models = {c.row.cell.model.name for c in fitting}
    alike = {c.row.cell.model.name for c in fitting if useful(c) == useful(best)}
    why = f"the largest of {len(alike)} models that fit" if len(alike) > 1 else "the only model that fits"
    where = " at a context that admits half of ARC's sequences" if alike != models else ""
    context, hours = best.row.cell.context, best.arc or best.training
    work = " over ARC's lengths" if best.arc else ""
    return (
        f"Best candidate: {best.name} at {context} tokens: {why} {goal.budget_hours:g} h{where}, with {goal.steps} "
        f"steps{work} in {hours.hours_mid:.3g} h ({hours.hours_low:.3g} to "
        f"{hours.hours_high:.3g}); its context admits {100 * PUBLISHED.coverage(context):.0f} % of ARC's leave-one-out "
        "sequences. No accuracy was measured: it may not be the best."
    )


def _accuracy(candidate: Candidate, projected: bool = False) -> float:
    """The projected or the measured accuracy, 0 to 1; 0 where there is none."""
    if projected and candidate.estimate:
        return candidate.estimate.mid
    return candidate.result.mean("attempts") if candidate.result else 0.0


def _told_apart(first: Candidate, second: Candidate) -> bool:
    a, b = first.result, second.result
    if not a or not b:
        return True
    # Two tests on the same tasks must agree: exact McNemar, and a bootstrap of the gains.
    low, _, high = paired_difference(b.by_task, a.by_task)
    return mcnemar(a.solved, b.solved) < _TIED and not low <= 0 <= high


def _why(scored: Sequence[Candidate], tied: Sequence[Candidate], projected: bool, goal: Goal) -> str:
    first, by = scored[0], "projected" if projected else "measured"
    accuracy = 100 * _accuracy(first, projected)
    which = f"the highest {by} accuracy of {len(scored)}" if len(scored) > 1 else f"the only one with a {by} accuracy"
    text = (
        f"Pick: {first.name} at {first.row.cell.context} tokens: {which}, {accuracy:.1f} %; load, {goal.steps} steps "
        f"and the answers take up to {first.hours_high:.3g} h of {goal.budget_hours:g}."
    )
    if tied:
        names = ", ".join(c.name for c in tied)
        text += f" Not told apart from {names} on these tasks (p >= {_TIED}): a tie; more --tasks would tell."
    return text


def _none(slow: Sequence[Candidate], goal: Goal) -> str:
    if not slow:
        return "Pick: none: no cell was measured."
    nearest = slow[0]
    return (
        f"Pick: none fits {goal.budget_hours:g} h. Nearest: {nearest.name} at {nearest.row.cell.context} tokens: load, "
        f"{goal.steps} steps and the answers take up to {nearest.hours_high:.3g} h; {nearest.steps} steps would fit, "
        f"or all on a device {nearest.hours_high / goal.budget_hours:.3g} times as fast."
    )
