"""The record of a results folder: one JSON line per row, appended whole or not at all.

Several processes may append to one file: every line is written under a lock, which the system releases if its holder is
killed. A record from elsewhere is data: a line that is not a row (torn by a kill or a full disk, or edited, or with
values that no measurement has) is moved aside and reported; the rest is used. Rows of a later version stay as they are.
"""

import errno
import gc
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import UserError
from harness.files import parse_json, read_bytes, replace_atomically, without_home
from harness.records.cell import MEASURING_RULE
from harness.records.measurement import from_json, to_json

NAME = "records.jsonl"
# In a folder from elsewhere a link may lead to any file, and a pipe would be waited for.
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class Rows:
    """A kind of row: its file in the folder, how it is written and read (ValueError for what is none), the rule that
    rows must have been made under to be valid now, and what a row is of, whatever rule it was made under."""

    name: str
    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[Any], Any]
    rule: int
    subject: Callable[[Any], Any] = lambda row: row.key

    @property
    def aside(self) -> str:
        """The file that corrupt lines are moved to."""
        return self.name.replace(".jsonl", ".corrupt.jsonl")


MEASUREMENTS = Rows(
    NAME,
    to_json,
    from_json,
    MEASURING_RULE,
    lambda row: (row.cell.model.name, row.cell.label, row.cell.context, row.cell.weights, row.cell.device_name),
)


@dataclass(frozen=True)
class LeftOut:
    """What of a record is not used: lines that are no rows, rows of an older rule of what no row of this one's is of,
    and rows of a later rule."""

    corrupt: int = 0
    older: int = 0
    later: int = 0

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(self.corrupt + other.corrupt, self.older + other.older, self.later + other.later)

    def sentences(self, of: str = "") -> list[str]:
        """What was left out, and what to do about it; `of` names the record where several are read."""
        out = f"{of and f' of {of}'} were left out"
        made = [f"{self.corrupt} corrupt lines{out}"] if self.corrupt else []
        if self.older:
            remedy = "measure them again with this version (results/README.md: what has changed)"
            made.append(f"{self.older} rows of older rules{out}: {remedy}")
        if self.later:
            made.append(f"{self.later} rows of a later version{out}: read them with that version")
        return made


NOTHING = LeftOut()


class Store:
    """The record of one kind of rows in `folder`. Raises UserError where the folder cannot be written.

    `write` is an argument so that a test can fill up the disk.
    """

    def __init__(self, folder: Path, write: Callable[[int, bytes], int] = os.write, kind: Rows = MEASUREMENTS):
        self.folder, self.path, self.kind = folder, folder / kind.name, kind
        self._write = write
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".records.lock")
            with self._lock:
                self.path.touch()
            os.close(os.open(self.path, _APPEND))
            _must_be_a_file(self.path)
        except OSError as problem:
            raise UserError(f"{folder}: cannot be written ({problem.strerror}); name another with --results") from None

    def add(self, row: Any) -> None:
        """Appends `row` and flushes it to disk. If the disk is full, restores the file and raises UserError."""
        # Reasons quote paths too; a record that is passed on says nothing of whose home it comes from.
        text = json.dumps(self.kind.to_json(row), separators=(",", ":"), allow_nan=True)
        line = without_home(text).encode() + b"\n"
        with self._lock:
            handle = os.open(self.path, _APPEND, 0o644)
            try:
                # A process that was killed here may have left half a line: it stays a line of its own.
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line
                # os.write may write only a part of the line.
                try:
                    rest = line
                    while rest:
                        rest = rest[self._write(handle, rest) :]
                    os.fsync(handle)
                except OSError as problem:
                    # No half row is left behind.
                    os.ftruncate(handle, size)
                    full = "the disk is full" if problem.errno == errno.ENOSPC else problem.strerror
                    raise UserError(
                        f"{self.path}: {full}; every earlier row is safe: make room and run the same command again"
                    ) from None
            finally:
                os.close(handle)

    def repair(self, note: Callable[[str], None] = lambda text: None) -> int:
        """Moves lines that are not rows to the file `kind.aside`, reports it by `note`, and returns their number."""
        with self._lock:
            good, bad = lines_of(self.path, self.kind)
            if bad:
                # They are safe in the other file before they leave this one.
                with (self.folder / self.kind.aside).open("ab") as aside:
                    aside.writelines(line + b"\n" for line in bad)
                    aside.flush()
                    os.fsync(aside.fileno())
                replace_atomically(self.path, b"".join(line + b"\n" for line, _ in good))
                moved = f"{len(bad)} corrupt lines of {self.path} moved to {self.folder / self.kind.aside}"
                note(f"{moved}; the rest is used")
        return len(bad)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it lasts nobody else writes the record."""
        with self._lock:
            yield

    def rows(self) -> dict[str, Any]:
        """The newest row of each key."""
        return {row.key: row for row in read(self.path, self.kind)[0]}


def read(path: Path, kind: Rows = MEASUREMENTS) -> tuple[list[Any], LeftOut]:
    """The newest row of each key in `path`, in the order of first measuring, and what else is in it.

    Rows of another rule are left out. Writes nothing. Raises OSError where there is no such file.
    """
    good, bad = lines_of(path, kind)
    rows: dict[str, Any] = {}
    older: dict[str, Any] = {}
    later = 0
    for _, row in good:
        if row is None or row.rule > kind.rule:
            later += 1
        else:
            (rows if row.rule == kind.rule else older)[row.key] = row
    # What has been measured again lacks nowhere.
    again = {kind.subject(row) for row in rows.values()} if older else set()
    lacking = sum(kind.subject(row) not in again for row in older.values())
    return list(rows.values()), LeftOut(len(bad), lacking, later)


def lines_of(path: Path, kind: Rows) -> tuple[list[tuple[bytes, Any]], list[bytes]]:
    """Good lines with their rows (None for one that a later version wrote), and corrupt lines, as bytes: what is kept
    is kept unchanged. Raises OSError."""
    good: list[tuple[bytes, Any]] = []
    bad: list[bytes] = []
    with without_collector():
        for line in _content(path).split(b"\n"):
            if not line.strip():
                continue
            try:
                raw = parse_json(line)
            except ValueError:
                bad.append(line)
                continue
            try:
                good.append((line, kind.from_json(raw)))
            except ValueError:
                if _is_later(raw, kind.rule):
                    good.append((line, None))
                else:
                    bad.append(line)
    return good, bad


def _content(path: Path) -> bytes:
    _must_be_a_file(path)
    return read_bytes(path)


def _must_be_a_file(path: Path) -> None:
    """Raises OSError for a folder, a pipe or a device."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _is_later(raw: Any, rule: int) -> bool:
    """Whether a row says that it was made under a later rule than this version's."""
    own = raw.get("rule") if isinstance(raw, dict) else None
    return type(own) is int and own > rule


@contextmanager
def without_collector() -> Iterator[None]:
    """Stops Python's garbage collector, which would go again and again through all that is made within, and stays."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


RESULTS = Path("results")


def slug(text: str) -> str:
    """`text` as a folder's name: lower case letters, digits and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64] or "device"


def latest_folder(results: Path = RESULTS) -> Path:
    """The folder under `results` with the newest record. Raises UserError where there is none."""
    records = sorted(results.glob(f"*/{NAME}"), key=os.path.getmtime)
    if not records:
        raise UserError(f"no record under {results}/; run `harness bench` first, or name its folder with --results")
    return records[-1].parent
