"""The smallest and the cheapest cards on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.digits import number, rounded
from harness.predict.smallest import KAGGLE_WEEK_H, Choice, Prices, cost, quota_hours, shortfall
from harness.records.cell import Goal
from harness.report.format import gib, hours
from harness.report.predictions import card, notes_of
from harness.report.style import folded, plain_table


def smallest_table(choices: Sequence[Choice], goal: Goal, prices: Prices, out: Console) -> None:
    """Prints a row per card that is chosen, what the columns mean, Kaggle's quota, and what comes nearest where none
    does it."""
    shown = plain_table(f"<model|<card|<prec|seq\nlen|all\nh (95 %)|peak\nGiB{'|EUR' if prices else ''}|<is the")
    notes: list[str] = []
    for choice in choices:
        model, precision, context = choice.cell
        name = f"{model} {precision} at {context} tokens"
        for cell, word in choice.shown:
            mark = "" if cell.native else "*"
            price = [number(cost(cell, goal, prices))] if prices else []
            shown.add_row(
                Text(model), card(cell), folded(cell.precision.name + cell.recipe.mark + mark), str(cell.context),
                hours(*cell.hours(goal)), gib(round(cell.peak_bytes)), *price, word,
            )  # fmt: skip
            if word != "nearest" and (quota := quota_hours(cell, goal)) is not None:
                of_quota = f"{rounded(quota)} of Kaggle's {KAGGLE_WEEK_H} quota hours per week"
                notes.append(f"{name} on {card(cell)}: {of_quota}.")
        if choice.nearest:
            near = f"{card(choice.nearest)} comes nearest: {shortfall(choice.nearest, goal)}"
            notes.append(f"{name}: no card surely does it; {near}.")
        elif choice.reason:
            notes.append(f"{name}: {choice.reason}.")
        elif prices and not choice.cheapest:
            notes.append(f"{name}: none of the cards with a price surely does it.")
    out.print()
    out.print(shown)
    out.print()
    out.print(Text(_definition(goal, bool(prices))))
    notes += [note for choice in choices for cell, _ in choice.shown for note in notes_of(cell)]
    for note in dict.fromkeys(notes):
        out.print(Text(f"- {note}"))


def _definition(goal: Goal, priced: bool) -> str:
    euros = " EUR: the middle of these hours times the price." if priced else ""
    return (
        "PREDICTED, not measured. Of one, two and four cards of a kind the smallest, by the memory of all, whose "
        f"memory surely suffices and that surely loads, makes {goal.steps} steps over ARC's lengths and answers "
        f"{goal.test_tasks} tasks within {goal.budget_hours:.7g} h: at the high end of all h, with its 95 % "
        "interval."
        f"{euros} *: emulated."
    )
