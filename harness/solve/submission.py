"""Kaggle's submission: per task, per test input, two attempts; always valid, whatever is answered so far."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.arc.encode import from_rows
from harness.arc.task import Task
from harness.errors import UserError
from harness.files import replace_atomically
from harness.records.arm import ATTEMPTS, Attempts

UNANSWERED = [[0, 0], [0, 0]]  # as Kaggle's own sample has it


def submission_of(tasks: Sequence[Task], attempts: Attempts) -> dict[str, list[dict[str, Any]]]:
    """The submission of `tasks` with the `attempts` that there are; a missing second attempt repeats the first."""
    return {task.id: [_attempts(attempts, task.id, i) for i in range(len(task.test_inputs))] for task in tasks}


def _attempts(attempts: Attempts, task: str, test_input: int) -> dict[str, Any]:
    answers = attempts.get(task, ())
    texts = answers[test_input] if test_input < len(answers) else ()
    grids = [[list(row) for row in grid] for text in texts if (grid := from_rows(text))]
    grids = (grids + grids[:1])[:ATTEMPTS] if grids else []
    grids += [UNANSWERED] * (ATTEMPTS - len(grids))
    return {f"attempt_{number}": grid for number, grid in enumerate(grids, 1)}


def write(path: Path, tasks: Sequence[Task], attempts: Attempts) -> None:
    """Writes the submission whole or not at all; the file of before stays valid. Raises UserError."""
    replace_atomically(path, json.dumps(submission_of(tasks, attempts)))


def check(path: Path, tasks: Sequence[Task]) -> None:
    """Raises UserError where no submission can be written at `path`: known at the start, not after twelve hours."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file, as in --out submission.json")
    try:
        before = path.read_bytes() if path.is_file() else None
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); remove it, or name another") from None
    # What lies there is written anew, for nothing but a write shows that it can be.
    replace_atomically(path, json.dumps(submission_of(tasks, {})) if before is None else before)


def faults(raw: Mapping[str, Any], tasks: Sequence[Task]) -> list[str]:
    """What is wrong with a submission, by Kaggle's rules; empty if nothing is."""
    found = [f"{task.id} is missing" for task in tasks if task.id not in raw]
    found += [f"{name} is no task" for name in raw if name not in {task.id for task in tasks}]
    for task in (task for task in tasks if task.id in raw):
        answers = raw[task.id]
        if not isinstance(answers, list) or len(answers) != len(task.test_inputs):
            found.append(f"{task.id} needs {len(task.test_inputs)} answers")
            continue
        for answer in answers:
            if not isinstance(answer, dict) or set(answer) != {"attempt_1", "attempt_2"}:
                found.append(f"{task.id} needs attempt_1 and attempt_2")
            elif not all(map(_is_grid, answer.values())):
                found.append(f"{task.id} has an attempt that is no grid")
    return found


def _is_grid(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and row and len(row) == len(value[0]) for row in value)
        and all(type(cell) is int and 0 <= cell <= 9 for row in value for cell in row)
    )
