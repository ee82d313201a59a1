"""Hours of a whole run: start-up and load of every worker, training, and the answers, over all cards.

A worker per card loads the model, all at once. One adapter for all tasks is trained by one worker (with
`data_parallel` cards if the cell had them), one adapter per task by all of them from a queue. All of them answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.analysis.budget import TRAINING_SHARE, WHOLE_SHARE, fits
from harness.analysis.drift import drift
from harness.analysis.projection import fixed_seconds, project
from harness.analysis.run_description import RunDescription
from harness.analysis.token_curve import ArcHours, TokenCurve, arc_hours, curve_key, fit_curves
from harness.arc.lengths import ANSWER_TOKENS, QUESTION_TOKENS
from harness.digits import rounded
from harness.records.arm import GREEDY, TASK, VOTE, ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement

MEASURED, PREDICTED, UNCOUNTED = "measured", "predicted", "none"  # what the hours of answering come from
_MOST_STEPS = 10**9


@dataclass(frozen=True)
class Span:
    """A 95 % interval and its middle."""

    low: float
    mid: float
    high: float

    def times(self, factor: float) -> "Span":
        return Span(self.low * factor, self.mid * factor, self.high * factor)


@dataclass(frozen=True, kw_only=True)
class RunHours:
    """The hours of `run`. `step` is of one optimiser step of every adapter and `answers` of all answers, both over all
    cards; None where answers can neither be measured nor predicted. `arc` says that sequences are of ARC's lengths, and
    `reach` how far beyond the longest measured context."""

    run: RunDescription
    load: float
    step: Span
    answers: Span | None
    evidence: str
    arc: bool
    reach: float

    @property
    def span(self) -> Span:
        train, answers = self.step.times(self.run.steps), self.answers or Span(0.0, 0.0, 0.0)
        mid, parts = train.mid + answers.mid, (train, answers)
        errors_below, errors_above = [p.mid - p.low for p in parts], [p.high - p.mid for p in parts]
        # The error of a prediction is its own; a machine that is slower later is so for training and answers alike.
        apart = self.evidence == PREDICTED
        below, above = (math.hypot(*errors) if apart else sum(errors) for errors in (errors_below, errors_above))
        return Span(self.load + max(0.0, mid - below), self.load + mid, self.load + mid + above)

    @property
    def low(self) -> float:
        return self.span.low

    @property
    def mid(self) -> float:
        return self.span.mid

    @property
    def high(self) -> float:
        return self.span.high

    @property
    def share(self) -> float:
        """The part of the budget that these hours may take: all of it, unless the answers are not in them."""
        return WHOLE_SHARE if self.answers else TRAINING_SHARE

    def fits(self, budget_hours: float) -> bool:
        return fits(self.high, budget_hours, self.share)

    def with_steps(self, steps: int) -> "RunHours":
        return replace(self, run=replace(self.run, steps=steps))

    def most_steps(self, budget_hours: float, most: int = _MOST_STEPS) -> int:
        """The most steps per adapter, up to `most`, that fit; 0 where none does."""
        if self.with_steps(most).fits(budget_hours):
            return most
        below, above = 0, most  # `above` does not fit
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if self.with_steps(middle).fits(budget_hours) else (below, middle)
        return below

    def sentence(self, budget_hours: float) -> str:
        """What takes how long at the slow end, in words."""
        hours = f"take up to {rounded(self.high)} h of {budget_hours:.7g}"
        if not self.answers:
            return f"load and {self.run.work} {hours}, answers not counted"
        return f"load, {self.run.work} and the answers {hours}"


def run_hours(
    run: RunDescription, like: Measurement, curve: TokenCurve | None, result: ArmResult | None = None
) -> RunHours | None:
    """The hours of `run` from the measured cell `like` and the curve through it and its neighbours; None where these
    say nothing of the run's context. `result` is the arm that the run is of, if any."""
    arc = arc_hours(curve, like, run.context, 1) if curve else None
    if arc is None and run.context != like.cell.context:
        return None
    # The arm's tasks may be shorter than ARC's; but no step is faster than the arm's own, of few sequences say.
    step, own = _step(run, like, arc), _measured_step(like, result)
    step = own if own and own.mid > step.mid else step
    workers = max(1, run.cards // like.cell.recipe.data_parallel)
    # The last worker of a queue decides.
    rounds = math.ceil(run.adapters / workers) if run.scope == TASK else 1
    evidence, answers = _answers(run, like, result)
    return RunHours(
        run=run,
        load=fixed_seconds(like) / 3600,
        step=step.times(rounds / 3600),
        answers=answers.times(run.test_tasks / run.cards / 3600) if answers else None,
        evidence=evidence,
        arc=arc is not None,
        reach=arc.reach if arc else 1.0,
    )


def default_runs(rows: Sequence[Measurement], goal: Goal) -> dict[str, RunHours]:
    """By key of every ok row: the hours of the goal's run at its context."""
    curves = fit_curves(rows)
    runs = {
        row.key: run_hours(RunDescription.of_goal(row, goal), row, curves[curve_key(row)]) for row in rows if row.ok
    }
    return {key: hours for key, hours in runs.items() if hours}


def _step(run: RunDescription, like: Measurement, arc: ArcHours | None) -> Span:
    """Seconds of one optimiser step of the run, by one of the cell's: sequences cost alike, the update once."""
    hours, fixed_s = arc or project(like, 1), fixed_seconds(like)
    own = Span(*(3600 * end - fixed_s for end in (hours.hours_low, hours.hours_mid, hours.hours_high)))
    update_s = min(own.mid, fmean(like.optimizer_s))
    ratio = run.recipe.sequences_per_step / like.cell.recipe.sequences_per_step
    return own.times(((own.mid - update_s) * ratio + update_s) / own.mid)


def _measured_step(like: Measurement, result: ArmResult | None) -> Span | None:
    """Seconds of one optimiser step of an adapter as the arm itself took them on such a device: with its sequences, its
    lengths and its packs; None where it ran on another, or its seconds are not known or too long for a busy CPU."""
    if not result or not _same_device(like, result) or not result.train_s or result.slowed:
        return None
    adapters = len(result.spec.tasks) - result.untrained if result.spec.scope == TASK else 1
    if not adapters * result.steps:
        return None
    half, mid = 1.96 * drift(like), result.train_s / (adapters * result.steps)
    return Span(mid * max(0.0, 1 - half), mid, mid * (1 + half))


def _same_device(like: Measurement, result: ArmResult) -> bool:
    """Whether both are of one kind of device, however many of it."""
    return result.spec.device_name.split(" x ", 1)[-1] == like.cell.device_name.split(" x ", 1)[-1]


def _answers(run: RunDescription, like: Measurement, result: ArmResult | None) -> tuple[str, Span | None]:
    """Where the seconds per task of answering come from, and these on one card."""
    answering = like.answering if (run.decode, run.select) == (GREEDY, VOTE) else None
    # Seconds that a busy CPU made too long count only where nothing else is known.
    if result and _same_device(like, result) and result.decode_s_per_task and not (answering and result.slowed):
        # With one adapter for all, processes share the tasks, and the slowest one's seconds were kept.
        shared = min(result.spec.recipe.data_parallel, len(result.spec.tasks)) if result.spec.scope != TASK else 1
        half, mid = 1.96 * drift(like), result.decode_s_per_task * shared
        return MEASURED, Span(mid * max(0.0, 1 - half), mid, mid * (1 + half))
    if answering is None:
        return UNCOUNTED, None
    # Questions that one adapter answers are decoded together: all of the set, or the views of one task.
    together = run.views * (1 if run.scope == TASK else run.test_tasks)
    question = min(run.context, QUESTION_TOKENS)
    # What a micro-step took longer than was predicted with it, answers are taken to take longer too.
    slower = fmean(like.micro_s) / like.predicted_micro_s if like.predicted_micro_s else 1.0
    mid = run.views * answering.seconds(question, ANSWER_TOKENS, together) * slower
    factor = math.exp(1.96 * answering.log_sigma)
    return PREDICTED, Span(mid / factor, mid, mid * factor)
