"""Sentences on the runs that rows are judged by: what `all h` holds, of which run it is, and what is not in it."""

from collections.abc import Mapping, Sequence

from harness.analysis.budget import TRAINING_SHARE
from harness.analysis.run_hours import RunHours
from harness.digits import rounded
from harness.records.arm import TASK
from harness.records.cell import Goal

Runs = Mapping[str, RunHours]  # by key of the row


def definition(runs: Sequence[RunHours], goal: Goal) -> str:
    """What all h is and what fits, for a table of these runs."""
    answers = f" and the answers of {goal.test_tasks} tasks" if any(run.answers for run in runs) else ""
    fits = f"fits: within {goal.budget_hours:.7g} h; tight: only its middle is."
    if runs and not answers:
        fits = f"fits: within {_part(goal)}, for the answers need room; tight: within all of it."
    return (
        f"all h: the whole run{_on_cards(runs)} at the slow end: load, {goal.steps} steps over ARC's lengths{answers}; "
        f"{fits}"
    )


def of_other_runs(named: Sequence[tuple[str, RunHours]], goal: Goal) -> list[tuple[str, str]]:
    """(name, sentence) per run of another kind than the goal's: that of a fine-tune whose accuracy was measured."""
    return [
        (
            name,
            f"all h is of the fine-tune whose accuracy was measured: {hours.run.work}, which are "
            f"{rounded(hours.run.dose)} sequences per task as there, and its answers.",
        )
        for name, hours in named
        if hours.run.scope == TASK or hours.run.steps != goal.steps
    ]


def of_uncounted(named: Sequence[tuple[str, RunHours]], goal: Goal) -> list[str]:
    """A sentence where answers are not in the hours of some."""
    names = [name for name, hours in named if not hours.answers]
    if not names:
        return []
    text = "answers not counted, for they were neither measured nor predicted"
    if len(names) == len(named):
        return [f"all h: {text}."]
    return [f"{', '.join(names)}: {text}; all h may take {_part(goal)}."]


def _part(goal: Goal) -> str:
    return f"{100 * TRAINING_SHARE:.0f} % of {goal.budget_hours:.7g} h"


def _on_cards(runs: Sequence[RunHours]) -> str:
    cards = max((run.run.cards for run in runs), default=1)
    return f" on all {cards} cards" if cards > 1 else ""
