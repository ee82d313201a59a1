"""All that a record says, one table after another: speed, and where it was measured accuracy and the pick."""

from collections.abc import Sequence

from rich.console import Console

from harness.forecast.candidates import candidates, choose
from harness.records import Goal, Measurement
from harness.report import arms, choice, table
from harness.tune.record import ArmResult


def show(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal, out: Console) -> None:
    """Prints the tables; the last line says which candidate to take, by accuracy where any was measured."""
    table.summary(rows, goal.budget_hours, goal.steps, out, best=not results)
    if not results:
        return
    for of_one in arms.by_trial(results):
        arms.table(of_one, out, goal.steps)
    choice.table(choose(candidates(rows, results, goal), goal), goal, out)
