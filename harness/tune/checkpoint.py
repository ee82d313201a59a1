"""The training state of an unfinished arm, on disk: an arm killed at any moment resumes from it."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import first_line

EVERY_S = 30.0
_SHARE = 0.02  # of the time that saving may take: an optimiser of 2 GB takes ten seconds and more on a slow disk
UNUSABLE = ".unusable"  # of a state that was put aside
FORMAT = 3  # of the states; a state of another version is not resumed from


class Checkpointer:
    """Keeps the newest state in `path`, whole or not at all.

    Saved every `every_s` seconds (0: each time), more seldom where saving would take over 2 % of the time. If the disk
    cannot hold it, `note` gets one message and training goes on without checkpoints. `fresh` ignores an
    older state; a process that does not save (`writes`) still loads.
    """

    def __init__(
        self,
        path: Path,
        note: Callable[[str], None],
        fresh: bool = False,
        every_s: float = EVERY_S,
        writes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path, self.note, self.fresh, self.every_s, self.writes = path, note, fresh, every_s, writes
        self.clock, self.saved_at, self.failed, self.least_s = clock, clock(), False, every_s

    def load(self, checked: Callable[[dict[str, Any]], dict[str, Any]] = lambda state: state) -> dict[str, Any]:
        """The saved state as `checked` returns it; empty where there is none that can be used.

        `checked` raises ValueError for a state that does not belong to this run. Such a file, and one that cannot be
        read, is put aside.
        """
        import torch

        if self.fresh or not self.path.is_file():  # a pipe would be waited for
            return {}
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
                raise ValueError("it is another version's")
            state = checked(state)
        except Exception as problem:  # of a file from anywhere torch raises what it likes
            self.note(f"{self.path} is put aside ({first_line(problem)}); the arm starts anew")
            if self.writes:
                with suppress(OSError):
                    self.path.replace(self.path.with_suffix(UNUSABLE))
            return {}
        self.note("going on from a checkpoint")
        return state

    def save(self, state: Callable[[], dict[str, Any]], now: bool = False) -> None:
        """Writes what `state` returns, if `now` or if the last save is long enough ago."""
        if self.failed or not self.writes or not (now or self.clock() - self.saved_at >= self.every_s):
            return
        import torch

        began_at = self.clock()

        # The rename replaces the older state only when the new one is whole.
        tmp = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f"{self.path.name}.", suffix=".tmp", dir=self.path.parent)
            tmp = Path(name)
            with os.fdopen(handle, "wb") as file:
                torch.save({"format": FORMAT, **state()}, file)
            tmp.replace(self.path)
        except (OSError, RuntimeError) as problem:  # torch reports a full disk as RuntimeError
            if tmp:
                with suppress(OSError):
                    tmp.unlink()
            self.failed = True
            where = f"{self.path.parent} ({first_line(problem)})"
            self.note(f"no checkpoint can be kept in {where}; if stopped, the arm starts anew")
        self.saved_at = self.clock()
        if self.every_s:
            self.every_s = max(self.least_s, (self.saved_at - began_at) / _SHARE)


def path_of(folder: Path, key: str) -> Path:
    """The file for the state of the arm with this key, beside the record in `folder`."""
    return folder / "checkpoints" / f"{key}.pt"


def answers_path(path: Path, rank: int = 0) -> Path:
    """The file for the answers of an unfinished evaluation by a process of this rank, beside the state in `path`."""
    return path.with_suffix(f".answers-{rank}")


def discard(folder: Path, key: str) -> None:
    """Removes an arm's state, an unusable one too, its answers, and partial files of processes that were killed."""
    path = path_of(folder, key)
    partial, answers = path.parent.glob(f"{path.name}.*.tmp"), path.parent.glob(f"{path.stem}.answers-*")
    for file in (path, path.with_suffix(UNUSABLE), *partial, *answers):
        with suppress(OSError):
            file.unlink()
