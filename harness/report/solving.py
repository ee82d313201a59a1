"""A run of solve as a person sees it: one live line, and a summary at the end."""

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from harness.arc.encode import from_rows
from harness.digits import fixed
from harness.records import solving
from harness.records.arm import TASK
from harness.report.format import duration
from harness.report.progress import ProgressLine

if TYPE_CHECKING:
    from harness.solve.config import SolveConfig
    from harness.solve.plan import PlanConfig, RunPlan
    from harness.solve.progress import Progress
    from harness.solve.run import SolveResult

_BARS = "▁▂▃▄▅▆▇█"
_PRINT_EVERY_S = 30.0  # between two plain lines


class SolveLine(ProgressLine):
    """The observer of a run (harness.solve.run.SolveObserver)."""

    printed_s = float("-inf")

    def progress(self, progress: "Progress") -> None:
        """Draws how the run stands; without a live line prints it now and then."""
        text = line(progress)
        self.live(text, progress.answered, progress.tasks)
        now = self.clock()
        if not self.bar and now - self.printed_s >= _PRINT_EVERY_S:
            self.printed_s = now
            self.note(text)


def line(progress: "Progress") -> str:
    """How the run stands, in about 75 columns."""
    parts = [f"{progress.answered} of {progress.tasks} tasks done"]
    if progress.again:
        parts.append(f"{progress.again} again")
    parts.append(f"{progress.busy}/{progress.workers} at work")
    parts.append(f"{duration(progress.left_s)} left")
    if progress.in_time is not None and progress.answered < progress.tasks:
        odds = _percent(progress.in_time).replace("over ", ">").replace("under ", "<")  # a line is short
        parts.append(f"all in {duration(progress.expected_s or 0.0)}, P {odds}")
    bars = sparkline(progress.seconds)
    return ", ".join(parts) + (f" {bars}" if bars else "")


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """The latest values as bars between nothing and the largest of them."""
    latest = values[-width:]
    highest = max(latest, default=0.0)
    if not highest:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, math.floor(value / highest * len(_BARS)))] for value in latest)


def show_plan(plan: "RunPlan", config: "PlanConfig", out: Console) -> None:
    """A run that is foreseen: what it is, hours by part, the odds, what does not fit, and how much would."""
    run, scope = plan.foreseen, "one adapter per task" if config.scope == TASK else "one adapter for all"
    workers = f"{plan.workers} workers" if plan.workers > 1 else "one worker"
    precision, context = f"{config.model.name} {plan.precision}", f"{config.context} tokens"
    budget = _hours(config.budget_s / 3600)
    every = "all others are" if plan.unasked else "all are"
    odds = f"{_percent(run.in_time)} {every} answered, {_percent(run.whole)} none is cut short"
    lines = [
        f"{plan.tasks} tasks, {precision} at {context} on {plan.device}, {workers}",
        f"{scope}, {_count(config.steps, 'step')} of {_count(config.recipe.sequences_per_step, 'sequence')}, "
        f"{_count(config.views, 'view')}",
        "",
        f"hours         {_hours(run.hours_mid)} (95 %: {_hours(run.hours_low)} to {_hours(run.hours_high)})",
        f"all work      training {_hours(plan.train_h)}, answers {_hours(plan.answer_h)}, load {duration(plan.load_s)}",
        f"in {budget:10} {odds}",
        f"would fit     {_count(plan.most_steps, 'step')} at {config.views} views, or "
        f"{_count(plan.most_views, 'view')} at {config.steps} steps (95 % sure)",
    ]
    if plan.most_rank is not None:
        lora = f"of LoRA at {config.context} tokens; planned is {config.recipe.lora_r}"
        short = f"may not suffice, not even for rank 1 {lora}; a shorter --context needs less"
        lines.append(f"memory for    rank {plan.most_rank:,} {lora}" if plan.most_rank else f"memory        {short}")
    for ids, what in ((plan.unasked, "with a test input beyond the context"), (plan.untrained, "answered untrained")):
        if ids:
            more = f" and {len(ids) - 4} more" if len(ids) > 4 else ""
            lines.append(f"{len(ids)} tasks {what}: {' '.join(ids[:4])}{more}")
    lines += ["", f"Seconds are {plan.source}."]
    for text in lines:
        out.print(Text(text))


def _hours(hours: float) -> str:
    return f"{fixed(hours, 1)} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _percent(share: float) -> str:
    return "over 99 %" if share > 0.994 else "under 1 %" if share < 0.006 else f"{100 * share:.0f} %"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else f"not even one {noun}"


def summary(result: "SolveResult", config: "SolveConfig", out: Console) -> None:
    """What the run has come to: tasks answered, where the seconds went, the score where solutions are known."""
    rows, tasks = result.rows, config.share
    answered = {row.task for row in rows if any(row.votes)}
    lines = [f"{len(answered)} of {len(tasks)} tasks answered, {len(rows)} attempts; submission in {config.out}"]
    whole = [row for row in rows if row.ok]
    if whole:
        middle = median(row.seconds for row in whole)
        train, answer = sum(row.train_s for row in whole), sum(row.answer_s for row in whole)
        lines.append(
            f"{middle:.1f} s per task in the middle, {100 * train / max(1e-9, train + answer):.0f} % of it training; "
            f"{sum(row.cut for row in rows)} cut short"
        )
    failed = [row for row in rows if not row.ok]
    lines += [f"{row.task}, attempt {row.attempt}: {row.status}: {row.reason}" for row in failed[:5]]
    if len(failed) > 5:
        lines.append(f"and {len(failed) - 5} more; see {result.folder}/{solving.ROWS.name}")
    never = [task.id for task in tasks if task.id not in answered]
    if never:
        more = f" and {len(never) - 5} more" if len(never) > 5 else ""
        lines.append(f"without an answer: {' '.join(never[:5])}{more}")
    lines += _held(result)
    lines.append(f"began {_moment(result.began)}, ended {_moment(result.ended)}, deadline {_moment(result.end)}")
    lines += _score(rows, config) + _right(result, config)
    for text in lines:
        out.print(Text(text), soft_wrap=True)


def sentence(rows: Sequence[solving.SolvedTask]) -> str:
    """The rows of a run in one sentence, for who reads its record."""
    tasks, answered = {row.task for row in rows}, {row.task for row in rows if any(row.votes)}
    attempts = f"{len(rows)} attempt{'s' if len(rows) > 1 else ''}"
    return (
        f"The newest run of solve: {len(answered)} of the {len(tasks)} tasks that it tried have an answer, after "
        f"{attempts}; --html FILE shows them."
    )


def _held(result: "SolveResult") -> list[str]:
    """What was foreseen at the first start beside what it came to."""
    if not result.planned:
        return []
    run, came = result.planned, "not every task was tried"
    if result.first_pass_h is not None:
        came = f"every task was tried once after {_hours(result.first_pass_h)}"
    return [f"planned {_hours(run.hours_mid)} ({_hours(run.hours_low)} to {_hours(run.hours_high)}); {came}"]


def _score(rows: Sequence[solving.SolvedTask], config: "SolveConfig") -> list[str]:
    """The score where solutions are known: the share of test inputs with the output among two attempts, per task."""
    known = [task for task in config.share if task.id in config.solutions]
    if not known:
        return []
    attempts = solving.all_attempts(rows)
    scores = []
    for task in known:
        truths, grids = config.solutions[task.id], attempts.get(task.id, ())
        right = [truth in map(from_rows, grids[i]) if i < len(grids) else False for i, truth in enumerate(truths)]
        scores.append(sum(right) / len(right))
    return [f"score: {sum(scores):.1f} of {len(known)} tasks, {100 * sum(scores) / len(known):.1f} %"]


def _right(result: "SolveResult", config: "SolveConfig") -> list[str]:
    """How many of the tasks without a solution are expected right, or that nothing is known."""
    if all(task.id in config.solutions for task in config.share):
        return []
    if (seen := result.expected) is None:
        return ["confidence is a share of the views: too few answers of this setting are known to be right or wrong"]
    return [
        f"expected correct: {seen.mid:.0f} of {seen.tasks} ({seen.low:.0f} to {seen.high:.0f}), "
        f"by {seen.known} answers that were known"
    ]


def _moment(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
