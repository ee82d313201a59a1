"""The verbs that read a record: report and pick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import parse
from harness.cli.options import Budget, ModelsFile, Results, Steps


def report(
    budget_hours: Budget = None,
    steps: Steps = None,
    results: Results = None,
    csv: Annotated[Path | None, typer.Option(help="Write the CSV to this file.")] = None,
    models_file: ModelsFile = None,
) -> None:
    """Print a record's tables again; needs no torch, and may judge by another budget.

    Examples:

      harness report

      harness report --budget-hours 9 --results results/tesla-t4 --csv t4.csv
    """
    from harness.report import style
    from harness.report.formats import FORMATS
    from harness.report.terminal import show

    rows, found, goal, folder, bad = parse.record(results, budget_hours, steps, models_file)
    if csv:
        FORMATS["csv"].write(rows, found, goal, csv)
    out = style.console()
    out.print(f"{folder}", soft_wrap=True, markup=False)
    if bad:
        print(f"{bad} corrupt lines were left out", file=sys.stderr)
    show(rows, found, goal, out)


def pick(
    budget_hours: Budget = None,
    steps: Steps = None,
    test_tasks: Annotated[int | None, typer.Option(help="Tasks to be answered within the budget too.")] = None,
    results: Results = None,
    models_file: ModelsFile = None,
) -> None:
    """Rank what was measured: by accuracy, among what fits the budget for load, training and answers together.

    Examples:

      harness pick

      harness pick --budget-hours 9 --test-tasks 240 --results results/tesla-t4

    Exit code 1 where none fits.
    """
    from harness.analysis.ranking import candidates, rank
    from harness.cli import parse
    from harness.report import ranking, style

    rows, found, goal, folder, _ = parse.record(results, budget_hours, steps, models_file, test_tasks)
    chosen = rank(candidates(rows, found, goal), goal)
    out = style.console()
    out.print(f"{folder}", soft_wrap=True, markup=False)
    ranking.table(chosen, goal, out)
    if not chosen.fits:
        raise typer.Exit(1)
