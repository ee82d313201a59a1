"""The candidates: every measured cell with the hours of one run, and the accuracy of that same run where there is one.

A run is described whole (harness.analysis.run_description). Without an accuracy it is the goal's; with one it is the
fine-tune that was measured, at the dose that it had, over all tasks. An accuracy joins a cell of the same model,
precision, weights, recipe and context, and no other. Where no cell has its context, the hours there come from the curve
through those that were measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from harness.analysis.comparison import Interval, chosen
from harness.analysis.learning_curve import Estimate, accuracy_after, chance_of_best
from harness.analysis.retraining import NONE, Noise, first_seeds, noise_for
from harness.analysis.run_description import RunDescription, differences, trained_dose
from harness.analysis.run_hours import RunHours, default_runs, run_hours
from harness.analysis.stats import wilson
from harness.analysis.token_curve import TokenCurve, by_curve, curve_key, fit_curves
from harness.analysis.weight_marks import mark_behind, weight_marks
from harness.catalog import trainable
from harness.records.arm import TASK, ArmResult, TuneSpec
from harness.records.cell import OPTIMIZED, Goal
from harness.records.measurement import Measurement

FARTHEST = 8  # times the longest measured context: beyond it nothing is projected


@dataclass(frozen=True)
class Candidate:
    """A run with its hours, and the accuracy that was measured of it, if any. `row` is the cell that the hours come
    from; its context may be another than the run's. `bought` is the same run with the steps that the budget allows, at
    most the goal's dose or the run's own, and `estimate` its accuracy, None where that is the measured one. `unmatched`
    says in what accuracies of this model are of other runs. `scopes` are all runs that `run` was chosen from, each with
    its accuracy: those that fit first, then by accuracy."""

    row: Measurement
    run: RunHours
    bought: RunHours
    result: ArmResult | None = None
    chosen_from: tuple[ArmResult, ...] = ()  # the arms of which `result` is the best
    noise: Noise = NONE
    baseline: ArmResult | None = None
    estimate: Estimate | None = None
    chance: float | None = None
    unmatched: str = ""
    scopes: tuple[tuple[float, RunHours], ...] = ()
    mark: str = ""  # tells it from another of its name, with other weights

    @property
    def name(self) -> str:
        return f"{self.row.cell.model.name} {self.row.cell.precision}{self.mark}"

    @property
    def context(self) -> int:
        return self.run.run.context

    @property
    def subject(self) -> tuple[str, str, str]:
        """Model, precision and weights: with other weights it is another candidate."""
        cell = self.row.cell
        return cell.model.name, cell.precision, cell.weights

    @property
    def accuracy(self) -> Interval:
        """(low, middle, high) of the measured accuracy, less what being the best of its arms flatters it by. Raises
        ValueError where there is none."""
        if not self.result:
            raise ValueError("no accuracy was measured")
        seeds = [self.noise.of(arm) for arm in self.chosen_from]
        return chosen([arm.by_task for arm in self.chosen_from], self.chosen_from.index(self.result), seeds)

    @property
    def hours_high(self) -> float:
        return self.run.high

    @property
    def at_own_context(self) -> bool:
        """Whether the cell was measured at the run's context."""
        return self.context == self.row.cell.context

    def in_its_cell(self) -> "Candidate":
        """The same with a row that names the run's context, for whoever makes settings of it."""
        return replace(self, row=replace(self.row, cell=replace(self.row.cell, context=self.context)))

    def fits(self, goal: Goal) -> bool:
        """Whether everything is done within the budget."""
        return self.run.fits(goal.budget_hours)


def candidates(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal) -> list[Candidate]:
    """Every measured cell, and behind those the runs of accuracies at contexts that no cell of their model has."""
    # A loss that is no number is no training. Reference steps are there to compare, unless they are all that there is.
    trained = [row for row in rows if row.ok and all(map(isfinite, row.losses)) and not _refused(row)]
    trained = [row for row in trained if row.cell.recipe.implementation == OPTIMIZED] or trained
    curves, comparable = fit_curves(rows), comparable_results(first_seeds(results))
    # By model and scope, of trained results.
    specs = {(r.spec.model.name, r.spec.scope): r.spec for r in comparable if r.steps}
    noise = {key: noise_for(results, spec) for key, spec in specs.items()}
    pairs = [(row, row.cell.context) for row in trained]
    for group in by_curve(trained).values():
        pairs += [(_nearest(group, context), context) for context in _contexts_between(group, comparable)]
    made = [_candidate(row, context, curves[curve_key(row)], comparable, goal, noise) for row, context in pairs]
    elsewhere = {subject(r): r for r in results if r.ok and r.steps}
    named = [_with_reason(c, elsewhere.get(c.subject), comparable) for c in made if c]
    listed = [c for c in named if (c.at_own_context or (c.result and c.run.reach <= FARTHEST))]
    # What several cells share counts once.
    compared = {(*c.subject, c.context): c.result.by_task for c in listed if c.result}
    seeds = {(*c.subject, c.context): c.noise.accuracy for c in listed if c.result}
    chances = chance_of_best(compared, list(seeds.values())) if len(compared) > 1 else {}
    listed = [replace(c, chance=chances.get((*c.subject, c.context))) if c.result else c for c in listed]
    marks = weight_marks(rows, results)
    return [replace(c, mark=mark_behind(c.row, marks)) for c in listed] if marks else listed


def judged_runs(rows: Sequence[Measurement], listed: Sequence[Candidate], goal: Goal) -> dict[str, RunHours]:
    """By key of every ok row: the run that it is judged by, of `listed` (its candidates) where it is one of them."""
    return default_runs(rows, goal) | {c.row.key: c.run for c in listed if c.at_own_context}


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
    """The best of one candidate's arms: the largest dose, then the highest accuracy, then one with a learning curve (it
    can be projected), then the lowest loss."""
    return max(
        results, key=lambda r: (trained_dose(r), r.mean("attempts"), bool(r.curve_points), -(r.token_loss or 0.0))
    )


def _nearest(group: Sequence[Measurement], context: int) -> Measurement:
    return min(group, key=lambda row: abs(math.log(row.cell.context / context)))


def _contexts_between(group: Sequence[Measurement], results: Sequence[ArmResult]) -> list[int]:
    """Contexts that fine-tunes of this group's recipe had, and none of its cells has."""
    measured = {row.cell.context for row in group}
    return sorted({r.spec.context for r in results if _matches(group[0], r.spec.context, r)} - measured)


def _matches(row: Measurement, context: int, result: ArmResult) -> bool:
    """Whether `result` is of a fine-tune as `row` was measured for, but at `context`."""
    cell = replace(row.cell, context=context)
    own = subject(result) == (cell.model.name, cell.precision, cell.weights)
    return own and result.steps > 0 and not differences(cell, result.spec)


def _candidate(
    row: Measurement,
    context: int,
    curve: TokenCurve | None,
    results: Sequence[ArmResult],
    goal: Goal,
    noise: Mapping[tuple[str, str], Noise],
) -> Candidate | None:
    cell = row.cell
    # Weights count too: an accuracy is never carried over to others.
    own = [r for r in results if subject(r) == (cell.model.name, cell.precision, cell.weights)]
    matching = [r for r in own if _matches(row, context, r)]
    if not matching:
        run = run_hours(replace(RunDescription.of_goal(row, goal), context=context), row, curve)
        if run is None:
            return None
        bought = run.with_steps(run.most_steps(goal.budget_hours, goal.steps))
        return Candidate(row, run, bought, baseline=_baseline(row, None, own), unmatched=_unmatched(row, own))
    # The best arm of each scope is a run of its own: those that fit first, then by accuracy.
    runs = []
    for scope in {r.spec.scope for r in matching}:
        arms = [r for r in matching if r.spec.scope == scope]
        arm = best_arm(arms)
        if hours := run_hours(RunDescription.of_result(row, arm, goal), row, curve, arm):
            runs.append((hours.fits(goal.budget_hours), arm.mean("attempts"), scope, arms, hours))
    if not runs:
        return None
    _, _, scope, arms, run = max(runs, key=lambda entry: entry[:3])
    result = best_arm(arms)
    chosen_from = tuple(arm for arm in arms if trained_dose(arm) == trained_dose(result))
    # What the budget allows, up to the goal's dose.
    goal_dose = goal.steps * cell.recipe.sequences_per_step / goal.test_tasks
    most = max(run.run.steps, run.run.steps_for(goal_dose))
    bought = run.with_steps(run.most_steps(goal.budget_hours, most))
    seeds = noise[result.spec.model.name, scope]
    return Candidate(
        row,
        run,
        bought,
        result,
        chosen_from,
        noise=seeds,
        baseline=_baseline(row, result, own),
        estimate=_estimate(result, run, bought, seeds),
        scopes=tuple((accuracy, hours) for _, accuracy, _, _, hours in runs),
    )


def _estimate(result: ArmResult, run: RunHours, bought: RunHours, noise: Noise) -> Estimate | None:
    """The accuracy at the dose that was bought, on the curve of the arm's own steps."""
    if bought.run.steps in (0, run.run.steps):
        return None
    share = 1.0 if run.run.scope == TASK else len(result.spec.tasks) / run.run.test_tasks
    return accuracy_after(result.curve_points, max(1, round(bought.run.steps * share)), noise.accuracy)


def _baseline(row: Measurement, result: ArmResult | None, own: Sequence[ArmResult]) -> ArmResult | None:
    """The untuned accuracy, asked and answered as `result` was."""

    def way(r: ArmResult) -> tuple:
        return r.spec.context, r.spec.encoding, r.spec.decode, r.spec.select, r.spec.recipe.trim_vocab

    untuned = [r for r in own if r.steps == 0]
    if result:
        return next((r for r in untuned if way(r) == way(result)), None)
    return next((r for r in untuned if r.spec.context == row.cell.context), None)


def _with_reason(candidate: Candidate, other: ArmResult | None, comparable: Sequence[ArmResult]) -> Candidate:
    """The candidate; one without an accuracy whose own, `other`, is of other tasks than the table's says so."""
    if candidate.result or candidate.unmatched or not other or not comparable:
        return candidate
    if other.spec.comparison_key == comparable[0].spec.comparison_key:
        return candidate

    def tasks(spec: TuneSpec) -> str:
        return f"{len(spec.tasks)} tasks of {spec.dataset}, {spec.views} views"

    reason = f"its accuracy is of other tasks ({tasks(other.spec)}) than the others' ({tasks(comparable[0].spec)})"
    return replace(candidate, unmatched=reason)


def _unmatched(row: Measurement, own: Sequence[ArmResult]) -> str:
    """In what the nearest fine-tune of this model is another run than `row`'s; empty where there is none."""
    trained = [(differences(row.cell, r.spec), r) for r in own if r.steps]
    if not trained:
        return ""
    fewest, result = min(trained, key=lambda pair: len(pair[0]))
    return f"the accuracy of {result.label} is of another run: {', '.join(fewest)}"
