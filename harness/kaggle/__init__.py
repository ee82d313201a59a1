"""What a notebook has around it on Kaggle: tasks, models, cards, a folder to write to. Elsewhere something stands in.

    here = kaggle.look()
    print(here)  # a sentence per thing that was found, was passed over, or stands in
    harness.solve(here.models[0], tasks=here.tasks, out=here.submission, results=here.results)

Nothing here raises for what is missing or malformed: a sentence says what is done instead. Only where Kaggle scores the
run and has no challenges for it, it stops: answers to other tasks would score nothing.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import network
from harness.arc.sources import load
from harness.arc.task import Task
from harness.catalog import gguf_model
from harness.catalog import models as model_table
from harness.errors import UserError, first_line
from harness.files import read_json
from harness.hardware import driver
from harness.kaggle import tasks as task_files
from harness.kaggle.inputs import Inputs, scan
from harness.solve import submission

INPUT, WORKING = Path("/kaggle/input"), Path("/kaggle/working")
STAND_IN_MODEL = "arc-tiny"
_MOST_MODELS = 4
_PICKLED = (".bin", ".pt", ".pth")
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
    would try again for minutes. Raises UserError where Kaggle scores this run and there are no challenges.
    """
    attached, scored = scan(Path(inputs)), bool(os.environ.get(_SCORED))
    folder, where = _working_folder(Path(working))
    path, about_tasks = task_files.choose(tasks, attached, folder, scored)
    names, about_models = _models(models, attached)
    notes = [*_cards(), *_internet(), *attached.notes, *about_tasks, *about_models, *where]
    return Here(folder=folder, tasks=path, models=names, scored=scored, notes=tuple(notes))


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


# ---- Models


def _models(named: Sequence[str], inputs: Inputs) -> tuple[tuple[str, ...], list[str]]:
    """Models that can be measured: those that are named, else those under `inputs`, else the one that comes along."""
    catalog, notes, known = model_table.load(), [], []
    given = [named] if isinstance(named, str) else list(named)
    if not given:
        notes += _pickled(inputs)
    for name in given or map(str, _attached(inputs)):
        try:
            catalog.find(name)
            known.append(name)
        except UserError as problem:
            notes.append(f"Left out: {problem}.")
    if not known:
        none = "None of these models can be had" if given else f"No weights that can be read under {inputs.root}"
        return (STAND_IN_MODEL,), [*notes, f"{none}: {STAND_IN_MODEL} stands in, the small model that comes along."]
    chosen = tuple(known[:_MOST_MODELS])
    if len(known) > len(chosen):
        notes.append(f"{len(known)} models are attached: the first {_MOST_MODELS} are taken; MODELS names others.")
    return chosen, [*notes, f"Models: {', '.join(chosen)}."]


def _attached(inputs: Inputs) -> list[Path]:
    """Folders with a config and safetensors, then GGUF files."""
    whole = {path.parent for path in inputs.files if path.suffix == ".safetensors"}
    folders = sorted(path.parent for path in inputs.files if path.name == "config.json" and path.parent in whole)
    return folders + sorted(path for path in inputs.files if path.suffix.lower() == gguf_model.SUFFIX)


def _pickled(inputs: Inputs) -> list[str]:
    """A sentence per folder whose weights are pickled, and no others."""
    attached = {path if path.is_dir() else path.parent for path in _attached(inputs)}
    configs = {path.parent for path in inputs.files if path.name == "config.json"}
    files = [path for path in inputs.files if path.suffix in _PICKLED and path.parent in configs - attached]
    first = {path.parent: path for path in reversed(files)}
    return [
        f"Passed over: {folder} has its weights in {first[folder].name}, and pickled weights are never loaded; attach "
        "safetensors or a GGUF file."
        for folder in sorted(first)
    ]


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
    return f"{here.submission} is valid: {len(tasks)} tasks, {_answered(raw, tasks)} of them with an answer."


def answered(here: Here) -> int:
    """Tasks with an answer in submission.json; 0 where there is no valid one."""
    tasks = load(str(here.tasks))[0]
    try:
        raw = read_json(here.submission)
    except (OSError, ValueError):
        return 0
    return _answered(raw, tasks) if isinstance(raw, dict) and not submission.faults(raw, tasks) else 0


def _answered(raw: dict[str, Any], tasks: Sequence[Task]) -> int:
    blank = {f"attempt_{number}": submission.UNANSWERED for number in (1, 2)}
    return sum(any(answer != blank for answer in raw[task.id]) for task in tasks)
