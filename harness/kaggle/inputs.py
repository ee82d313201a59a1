"""The files that are attached to a notebook, each input looked through breadth-first and by itself.

What is looked for lies near the top of an input, and another input may have tens of thousands of folders: these must
not use up the search of all.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_DEEPEST = 7  # folders below the inputs: a model's are OWNER/NAME/FRAMEWORK/VARIATION/VERSION
MOST_FOLDERS = 5_000  # of one input
_MOST_INPUTS = 1_000  # of a group
# Kaggle's folders of inputs, and how many folders below them an input lies: OWNER/NAME.
COMPETITIONS = "competitions"
_GROUPS = {COMPETITIONS: 1, "datasets": 2, "models": 2, "notebooks": 2}


@dataclass(frozen=True)
class Inputs:
    """`files` are those that were found under `root`, the nearest to the top of each input first; `cut` are the inputs
    that have more folders than were looked into."""

    root: Path
    files: tuple[Path, ...]
    cut: tuple[Path, ...]

    @property
    def notes(self) -> list[str]:
        return [
            f"{path} has more than {MOST_FOLDERS} folders, of which the first are looked into; what lies in others is "
            "named by TASKS or MODELS."
            for path in self.cut
        ]


def scan(root: Path) -> Inputs:
    """What lies under `root`; nothing where there is no such folder."""
    # What lies beside the inputs, and between them in a group, belongs to none.
    files, inputs = _inputs(root)
    cut = []
    for path in inputs:
        more, whole = _breadth_first(path, _DEEPEST - len(path.relative_to(root).parts))
        files += more
        cut += [] if whole else [path]
    return Inputs(root, tuple(files), tuple(cut))


def _inputs(root: Path) -> tuple[list[Path], list[Path]]:
    files, folders = _entries(root)
    inputs = []
    for folder in folders:
        level, between = [folder], []
        for _ in range(_GROUPS.get(folder.name, 0)):
            below = [_entries(path) for path in level]
            between += [file for own, _ in below for file in own]
            level = [path for _, own in below for path in own]
            if len(level) > _MOST_INPUTS:  # no group, but an input that is called so
                level, between = [folder], []
                break
        files += between
        inputs += level
    return files, inputs


def _breadth_first(top: Path, deepest: int) -> tuple[list[Path], bool]:
    """The files of `top`, and whether all its folders were looked into."""
    files: list[Path] = []
    level, visited = [top], 0
    for _ in range(deepest + 1):
        below: list[Path] = []
        for folder in level:
            if visited == MOST_FOLDERS:
                return files, False
            visited += 1
            own, folders = _entries(folder)
            files += own
            below += folders
        level = below
    return files, True


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders of `folder`, by name; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            kinds = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return [], []
    return [folder / name for name, is_dir in kinds if not is_dir], [folder / name for name, is_dir in kinds if is_dir]
