"""The verbs that read a record: report and pick."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.catalog import models as model_table
from harness.cli import parse
from harness.cli.options import Budget, ModelsFile, Recorded, Steps, Track
from harness.errors import UserError
from harness.records.cell import Goal
from harness.records.store import without_collector

if TYPE_CHECKING:
    from harness.analysis.history import History
    from harness.records.solving import SolvedTask


@without_collector()  # a report of many rows ends before it would have freed anything
def report(
    budget_hours: Budget = None,
    steps: Steps = None,
    results: Recorded = None,
    csv: Annotated[Path | None, typer.Option(help="Write the CSV to this file.")] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="Write csv, arms or pytest-benchmark beside the record, or several.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page of tables and pictures, which needs no network, to this file.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Draw the page's pictures as SVG and PNG into this folder.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show the arms beside those that others published, unranked.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Show what cells took before, in this record and those beside it.")
    ] = False,
    notes: Annotated[
        bool, typer.Option("--notes", help="Show all notes, not only those that ask for something.")
    ] = False,
    track: Track = None,
    models_file: ModelsFile = None,
) -> None:
    """Print a record's tables again; needs no torch, and may judge by another budget.

    Examples:

      harness report

      harness report --budget-hours 9 --results results/tesla-t4 --csv t4.csv

      harness report --html report.html --figures pictures

      harness report --published

      harness report --history --html report.html

      harness report --track "mlflow tensorboard"
    """
    from harness.report import formats, style
    from harness.report.terminal import MOST_NOTES, show

    goal = parse.goal(model_table.load(models_file), budget_hours, steps)
    names = parse.trackers_of(track)
    record = parse.record(results, with_cells=False)
    # Files first: they are wanted even where nobody looks at the tables.
    content = record.rows, record.results, goal
    if csv:
        formats.FORMATS["csv"].write(*content, csv)
    for name in parse.words(file_format):
        formats.write(name, *content, record.folder)
    past, files = _history(record.folder) if history else ([], 0)
    if html or figures:
        _draw(record, goal, html, figures, (past, files))
    out = style.console()
    out.print(f"{record.folder}", soft_wrap=True, markup=False)
    _say_left_out(record)
    show(*content, out, None if notes else MOST_NOTES, _solved(record.folder))
    if names:
        from harness.report import trackers

        trackers.show(names, record.folder, out)
    if published:
        from harness.report import published as beside

        beside.show(record.results, out)
    if history:
        from harness.report import history as over_time

        over_time.show(past, files, out)


def _say_left_out(record: parse.RecordRows) -> None:
    for line in record.left_out.sentences():
        print(line, file=sys.stderr)


def _solved(folder: Path) -> "list[SolvedTask]":
    from harness.records.solving import newest_run

    try:
        return newest_run(folder)
    except OSError as problem:
        raise UserError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None


def _history(folder: Path) -> "tuple[list[History], int]":
    """The cells that were measured more than once, here or in the folders beside it, and how many files hold them."""
    from harness.analysis.history import histories
    from harness.records.history import read_beside

    rows, files = read_beside(folder)
    return histories(rows), len(files)


def _draw(
    record: parse.RecordRows, goal: Goal, html: Path | None, folder: Path | None, past: "tuple[list[History], int]"
) -> None:
    """Writes the page and the pictures, each drawn once."""
    from harness.report.page import history
    from harness.report.page.figures import pictures, write_figures
    from harness.report.page.judged import Content, Judged
    from harness.report.page.render import write_page

    judged = Judged.of(Content.of(record.folder, record.rows, record.results, record.left_out), goal)
    drawn = [*pictures(judged), *history.pictures(*past)]
    if html:
        write_page(judged, html, drawn)
    if folder:
        write_figures(drawn, folder)


@without_collector()
def pick(
    budget_hours: Budget = None,
    steps: Steps = None,
    test_tasks: Annotated[int | None, typer.Option(help="Tasks to be answered within the budget too.")] = None,
    results: Recorded = None,
    emit: Annotated[Path | None, typer.Option(help="Write the pick's settings as YAML, for solve --recipe.")] = None,
    models_file: ModelsFile = None,
) -> None:
    """Rank what was measured: by accuracy, among what fits the budget for load, training and answers together.

    Examples:

      harness pick

      harness pick --budget-hours 9 --test-tasks 240 --results results/tesla-t4

      harness pick --emit run.yaml

    Exit code 1 where none fits.
    """
    from harness.analysis.candidates import candidates, left_out
    from harness.analysis.ranking import rank_candidates
    from harness.report import ranking, style, weight_notes

    goal = parse.goal(model_table.load(models_file), budget_hours, steps, test_tasks)
    record = parse.record(results)
    chosen = rank_candidates(candidates(record.rows, record.results, goal), goal)
    out = style.console()
    out.print(f"{record.folder}", soft_wrap=True, markup=False)
    _say_left_out(record)
    for line in left_out(record.rows):
        out.print(f"- {line}", markup=False)
    ranking.ranking_table(chosen, goal, out)
    weight_notes.show(record.rows, record.results, out)
    if emit and chosen.best:
        from harness.files import write_output
        from harness.solve import recipe_file

        write_output(emit, recipe_file.text_of(chosen.best.in_its_cell(), str(emit)))
    # For scripts, which do not read the sentence.
    if not chosen.fits:
        raise typer.Exit(1)
