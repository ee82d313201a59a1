"""From what was typed to what is asked: every value checked before anything is started."""

import re
from pathlib import Path

from harness.catalog import models as catalog
from harness.errors import UserError, positive
from harness.records.arm import ROWS, ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement


def goal(budget_hours: float | None, steps: int | None, known: catalog.Catalog, test_tasks: int | None = None) -> Goal:
    return Goal(
        positive("--budget-hours", budget_hours) or known.defaults.budget_hours,
        int(positive("--steps", steps) or known.defaults.steps),
        int(positive("--test-tasks", test_tasks) or known.defaults.test_tasks),
    )


def record(
    results: Path | None,
    budget_hours: float | None,
    steps: int | None,
    models_file: Path | None,
    test_tasks: int | None = None,
) -> tuple[list[Measurement], list[ArmResult], Goal, Path, int]:
    """A folder's rows and accuracies, the goal to judge them by, the folder, and how many lines were no rows."""
    from harness.records import store
    from harness.records.store import latest_folder

    aim = goal(budget_hours, steps, catalog.load(models_file), test_tasks)
    folder = results or latest_folder()
    path = folder / store.NAME
    try:
        rows, bad = store.read(path)
        found, worse = store.read(folder / ROWS.name, ROWS) if (folder / ROWS.name).exists() else ([], 0)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); run `harness bench` first") from None
    return rows, found, aim, folder, bad + worse


def words(text: str) -> list[str]:
    """The names in "a b" or "a,b", each once."""
    return list(dict.fromkeys(text.replace(",", " ").split()))


def context_of(word: str) -> int:
    if not word.isdigit() or not 2 <= int(word) <= 10_000_000:
        raise UserError(f"context {word!r} is no number of tokens; give 2 or more, as in --contexts '1024 4096'")
    return int(word)


def device_of(asked: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise UserError(f"unknown device {asked!r}; use auto, cpu, cuda or cuda:N")
    return asked
