"""The page that bench, ttft and solve leave beside their record."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.arc.task import Solutions, Task
from harness.errors import UserError
from harness.records import arm, store
from harness.records.cell import Goal
from harness.report.page import figures
from harness.report.page.canvas import Picture
from harness.report.page.judged import Content, Judged
from harness.report.page.render import write_page

NAME = "report.html"


def write_beside(folder: Path, goal: Goal, tasks: tuple[Sequence[Task], Solutions] | None = None) -> Path | None:
    """Writes the page of all that is in `folder`, judged by `goal`, and returns its path.

    The run is done, and all of it on disk: what hinders the page is a line on stderr, and no more. Without matplotlib
    it has no pictures, without jinja2 there is none.
    """
    try:
        judged = Judged.of(read(folder, tasks), goal)
        write_page(judged, folder / NAME, _drawn(judged))
    except UserError as problem:
        print(f"no {NAME}: {problem}", file=sys.stderr)
        return None
    return folder / NAME


def _drawn(judged: Judged) -> list[Picture]:
    pictures = figures.pictures(judged)
    try:
        for picture in pictures:
            picture.inline  # noqa: B018  # draws it, once
    except UserError as problem:
        print(f"{NAME} is without pictures: {problem}", file=sys.stderr)
        return []
    return pictures


def read(folder: Path, tasks: tuple[Sequence[Task], Solutions] | None = None) -> Content:
    """What is in `folder`; any of its records may be missing. Raises UserError for one that cannot be read."""
    paths = [(folder / store.NAME, store.MEASUREMENTS), (folder / arm.ROWS.name, arm.ROWS)]
    try:
        (rows, left_out), (results, more) = [
            store.read(*pair) if pair[0].exists() else ([], store.NOTHING) for pair in paths
        ]
    except OSError as problem:
        raise UserError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None
    return Content.of(folder, rows, results, left_out + more, tasks)
