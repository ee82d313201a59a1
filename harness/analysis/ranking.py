"""Which candidate to take: speed and accuracy brought together, under one budget for everything.

The budget pays for loading, training and answering. Three things are kept apart: the accuracy measured after a few
steps, the chance of being the best of all candidates on such tasks, and the accuracy projected to the steps that the
budget allows, as an interval or refused with its reason. A candidate without a measured accuracy is given none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from harness.analysis.learning_curve import Estimate, accuracy_after, chance_of_best
from harness.analysis.projection import Projection, project, relative_half_width
from harness.analysis.stats import mcnemar, paired_difference, wilson
from harness.analysis.verdict import FITS, TIGHT, verdict
from harness.arc import lengths
from harness.records.arm import ArmResult
from harness.records.cell import OPTIMIZED, Goal
from harness.records.measurement import Measurement

_TIED = 0.05  # two candidates whose difference has a larger p are not told apart


@dataclass(frozen=True)
class Candidate:
    """A measured cell with the accuracy of its model and precision; hours for everything, 95 %.

    `inference_h` is the measured decoding time for as many tasks as are to be answered, None where none was measured.
    `steps` are those that the budget allows, at most as many as were asked for.
    """

    row: Measurement
    training: Projection
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
        """What its accuracy is of: a model and precision with other weights is another candidate."""
        cell = self.row.cell
        return cell.model.name, cell.precision, cell.weights

    @property
    def hours_high(self) -> float:
        return self.training.hours_high + (self.inference_h or 0.0)

    @property
    def hours_mid(self) -> float:
        return self.training.hours_mid + (self.inference_h or 0.0)

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the measured accuracy."""
        return wilson(sum(self.result.by_task), len(self.result.scores))


@dataclass(frozen=True)
class Ranking:
    """Candidates that fit, the best first, those that do not, and the sentences that say why."""

    fits: tuple[Candidate, ...]
    too_slow: tuple[Candidate, ...]
    tied: tuple[Candidate, ...]
    why: str


def candidates(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal) -> list[Candidate]:
    """Every measured cell, with the accuracy that was measured for its model, precision and weights, if any."""
    finite = [row for row in rows if row.ok and all(map(isfinite, row.losses))]
    measured = [row for row in finite if row.cell.recipe.implementation == OPTIMIZED]  # the others are there to compare
    exam = same_exam(results)
    found = [_candidate(row, exam, goal) for row in measured]
    compared = {c.subject: c.result.by_task for c in found if c.result}
    chances = chance_of_best(compared) if len(compared) > 1 else {}
    return [replace(c, chance=chances.get(c.subject)) for c in found]


def same_exam(results: Sequence[ArmResult]) -> list[ArmResult]:
    """The results on the tasks that most candidates were asked; of several such sets the one asked last."""
    exams: dict[tuple, list[ArmResult]] = {}
    for result in results:
        exams.setdefault(result.spec.comparison_key, []).append(result)
    if not exams:
        return []

    def merit(each: list[ArmResult]) -> tuple[int, str]:
        return len({subject(result) for result in each}), max(result.started for result in each)

    return max(exams.values(), key=merit)


def subject(result: ArmResult) -> tuple[str, str, str]:
    """What a result is about."""
    return result.spec.model.name, result.spec.precision, result.spec.weights


def best_arm(results: Sequence[ArmResult]) -> ArmResult:
    """Of one subject's results the arm with most steps, then the highest accuracy, then one that was evaluated on the
    way, for it can be projected, then the lowest loss."""
    return max(results, key=lambda r: (r.steps, r.mean("attempts"), bool(r.curve_points), -(r.token_loss or 0.0)))


def _candidate(row: Measurement, results: Sequence[ArmResult], goal: Goal) -> Candidate:
    cell = row.cell
    own = [r for r in results if subject(r) == (cell.model.name, cell.precision, cell.weights)]
    training = project(row, goal.steps)
    if not own:
        return Candidate(row, training, None, _affordable(row, training, goal, 0.0))
    result = best_arm(own)
    inference_h = result.decode_s_per_task * goal.test_tasks / 3600
    allowed = _affordable(row, training, goal, inference_h)
    baseline = next((r for r in own if r.steps == 0), None)
    estimate = accuracy_after(result.curve_points, allowed) if allowed else None
    return Candidate(row, training, inference_h, allowed, result, baseline, estimate)


def _affordable(row: Measurement, training: Projection, goal: Goal, inference_h: float) -> int:
    """Steps that end within the budget at the slow end of the interval, at most the goal's."""
    fixed_h = training.hours_mid - goal.steps * training.step_s / 3600
    step_h = training.step_s * (1 + relative_half_width(row)) / 3600
    return max(0, min(goal.steps, int((goal.budget_hours - fixed_h - inference_h) / step_h)))


def rank(found: Sequence[Candidate], goal: Goal) -> Ranking:
    """The candidates ranked: those that fit the budget with all steps, by accuracy where it is known.

    By the projected accuracy where every candidate with an accuracy has a projection, else by the measured one; those
    whose accuracy was not measured come after, the largest model first. One cell a model and precision: the longest
    context that fits.
    """
    slow = tuple(sorted((c for c in found if c.hours_high > goal.budget_hours), key=lambda c: c.hours_high))
    best: dict[tuple, Candidate] = {}
    for c in sorted(found, key=lambda c: c.row.cell.context):
        if c.hours_high <= goal.budget_hours:
            best[c.subject] = c
    known = [c for c in best.values() if c.result]
    projected = bool(known) and all(c.estimate and not c.estimate.refused for c in known)
    score = (lambda c: c.estimate.mid) if projected else (lambda c: c.result.mean("attempts"))
    known.sort(key=lambda c: (-score(c), -c.result.mean("attempts"), c.hours_high))
    unknown = sorted((c for c in best.values() if not c.result), key=lambda c: (-(c.row.params or 0), c.hours_high))
    tied = tuple(c for c in known[1:] if not _told_apart(known[0], c))
    if known:
        why = _why(known, tied, projected, goal)
    elif best:
        fastest = pick([c.row for c in found], goal.budget_hours, goal.steps)
        why = f"{fastest.why} No accuracy was measured: it may not be the best."
    else:
        why = _none(slow, goal)
    return Ranking((*known, *unknown), slow, tied, why)


def _told_apart(first: Candidate, second: Candidate) -> bool:
    a, b = first.result, second.result
    low, _, high = paired_difference(b.by_task, a.by_task)
    return mcnemar(a.solved, b.solved) < _TIED and not low <= 0 <= high


def _why(known: Sequence[Candidate], tied: Sequence[Candidate], projected: bool, goal: Goal) -> str:
    first, by = known[0], "projected" if projected else "measured"
    accuracy = 100 * (first.estimate.mid if projected else first.result.mean("attempts"))
    which = f"the highest {by} accuracy of {len(known)}" if len(known) > 1 else f"the only one with a {by} accuracy"
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
    near = slow[0]
    return (
        f"Pick: none fits {goal.budget_hours:g} h. Nearest: {near.name} at {near.row.cell.context} tokens: load, "
        f"{goal.steps} steps and the answers take up to {near.hours_high:.3g} h; {near.steps} steps would fit."
    )


@dataclass(frozen=True)
class Pick:
    """The best of the measured cells, or None, and the sentence that says why."""

    row: Measurement | None
    why: str


def pick(rows: Sequence[Measurement], budget_hours: float, steps: int = 1000) -> Pick:
    """The largest model that fits, at a context that admits half of ARC's sequences if any such fits.

    Among the cells of that model the longest context wins, then the fewest hours; `fits` goes before `tight`.
    """
    measured = [row for row in rows if row.ok]
    words = {id(row): verdict(row, budget_hours, steps) for row in measured}
    good = [row for row in measured if words[id(row)] in (FITS, TIGHT)]
    if good:
        best = max(good, key=lambda row: _merit(row, words[id(row)], steps))
        hours = project(best, steps)
        covered = lengths.coverage(best.cell.context)
        others = len({row.cell.model.name for row in good}) - 1
        why = f"the largest of {others + 1} models that fit" if others else "the only model that fits"
        return Pick(
            best,
            f"Best candidate: {_name(best)}: {why} {budget_hours:g} h, with {steps} steps in {_hours(hours)}; "
            f"its context admits {100 * covered:.0f} % of ARC's leave-one-out sequences.",
        )
    if not measured:
        return Pick(None, "No candidate: no cell was measured; the reasons stand in the table.")
    near = min(measured, key=lambda row: project(row, steps).hours_high)
    hours = project(near, steps)
    over = hours.hours_high / budget_hours
    fixed_h = hours.hours_mid - steps * hours.step_s / 3600
    affordable = max(0, int(steps * (budget_hours - fixed_h) / (hours.hours_high - fixed_h)))
    return Pick(
        None,
        f"None fits {budget_hours:g} h. Nearest: {_name(near)}, {steps} steps in {_hours(hours)}: "
        f"it would fit with {affordable} steps, or on a device {over:.1f} times as fast.",
    )


def _merit(row: Measurement, word: str, steps: int) -> tuple:
    cell = row.cell
    return (
        lengths.coverage(cell.context) >= 0.5,
        word == FITS,
        row.params or 0,
        cell.context,
        -project(row, steps).hours_mid,
    )


def _name(row: Measurement) -> str:
    return f"{row.cell.model.name} {row.cell.precision} at {row.cell.context} tokens"


def _hours(p: Projection) -> str:
    return f"{p.hours_mid:.3g} h ({p.hours_low:.3g} to {p.hours_high:.3g})"
