"""Folders of one record's parts made one: rows of shards, or of machines that worked on the same cells.

The same row counts once, so merging again changes nothing. Where two folders have measured the same, the later
measurement stays, and one that went well before any that did not; both are named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import replace_atomically
from harness.records import arm, solving
from harness.records.store import MEASUREMENTS, Rows, Store, lines_of


@dataclass(frozen=True)
class _Kind:
    """Rows of a kind: what a row is called, and the device that it is of."""

    rows: Rows
    name: Callable[[Any], str]
    device: Callable[[Any], str]


_KINDS = (
    _Kind(
        MEASUREMENTS,
        lambda row: f"{row.cell.model.name} {row.cell.label} {row.cell.context}",
        lambda row: row.cell.device_name,
    ),
    _Kind(arm.ROWS, lambda row: f"{row.spec.model.name} {row.label}", lambda row: row.spec.device_name),
    # A run goes over all cards that there are; its rows say which.
    _Kind(solving.ROWS, lambda row: f"{row.task}, attempt {row.attempt}", lambda row: ""),
)


@dataclass
class Merged:
    """What a merge did: rows that are new in the folder, those that it had, and per conflict a sentence."""

    added: int = 0
    same: int = 0
    conflicts: list[str] = field(default_factory=list)
    corrupt: int = 0
    older: int = 0  # rows of an older rule, which are left out


def merge(folders: Sequence[Path], into: Path, note: Callable[[str], None] = lambda text: None) -> Merged:
    """Merges the records of `folders` into the folder `into`, which may have one already; its corrupt lines are moved
    aside, which `note` says, and its rows of an older rule stay.

    Raises UserError where a folder has no record, or nothing but rows of an older rule, or rows of a later one, or of
    another device.
    """
    for folder in folders:
        if not any((folder / kind.rows.name).is_file() for kind in _KINDS):
            raise UserError(f"{folder}: has no record; name folders that hold one, as results/tesla-t4")
    result = Merged()
    # All is read and checked before anything is written.
    parts = [(kind, _parts(kind, [into, *folders])) for kind in _KINDS]
    for kind, sources in parts:
        _must_be_alike(kind, sources)
    for number, folder in enumerate(folders, 1):
        are_older = [_is_older(row, kind) for kind, sources in parts for _, row in sources[number][1]]
        if are_older and all(are_older):
            raise UserError(f"{folder}: has rows of older rules alone; measure them again with this version")
    for kind, sources in parts:
        if any(rows for _, rows, _ in sources[1:]):
            _merge(kind, sources, into, note, result)
        result.older += sum(_is_older(row, kind) for _, rows, _ in sources[1:] for _, row in rows)
        result.corrupt += sum(corrupt for _, _, corrupt in sources[1:])
    return result


# Of a folder: its good lines with their rows, and the number of corrupt ones.
_Part = tuple[Path, list[tuple[bytes, Any]], int]


def _parts(kind: _Kind, folders: Sequence[Path]) -> list[_Part]:
    found = []
    for folder in folders:
        path = folder / kind.rows.name
        try:
            good, bad = lines_of(path, kind.rows) if path.is_file() else ([], [])
        except OSError as problem:
            raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
        found.append((folder, good, len(bad)))
    return found


def _is_older(row: Any, kind: _Kind) -> bool:
    return row is not None and row.rule < kind.rows.rule


def _must_be_alike(kind: _Kind, sources: Sequence[_Part]) -> None:
    """Raises UserError for rows of a later rule or another device: they would stand side by side as if they were
    alike."""
    devices: dict[str, Path] = {}
    for folder, rows, _ in sources:
        path, rule = folder / kind.rows.name, kind.rows.rule
        if any(row is None or row.rule > rule for _, row in rows):
            raise UserError(
                f"{path}: has rows of a later version's rule, and this version's is {rule}; "
                "merge them with the version that wrote them"
            )
        for _, row in rows:
            if not _is_older(row, kind):
                devices.setdefault(kind.device(row), folder)
    if len(devices) > 1:
        (first, a), (second, b), *_ = devices.items()
        raise UserError(
            f"{a} is of {first!r}, and {b} of {second!r}: a record is of one device; merge each into its own"
        )


def _newest(kind: _Kind, rows: Sequence[tuple[bytes, Any]]) -> dict[str, tuple[bytes, Any]]:
    """The newest row of each key, of this version's rule, with its line."""
    return {row.key: (line, row) for line, row in rows if not _is_older(row, kind)}


def _merge(kind: _Kind, sources: Sequence[_Part], into: Path, note: Callable[[str], None], result: Merged) -> None:
    store = Store(into, kind=kind.rows)
    store.repair(note)
    with store.locked():
        # What was added since it was read counts too.
        _, own, _ = _parts(kind, [into])[0]
        older = [line for line, row in own if row is None or _is_older(row, kind)]
        kept = {row.key: (line, row, into) for line, row in own if row is not None and not _is_older(row, kind)}
        for folder, rows, _ in sources[1:]:
            # The newest row of a folder answers for its key.
            for key, (line, row) in _newest(kind, rows).items():
                held_line, held, held_in = kept.get(key, (None, None, None))
                if held_line == line:
                    result.same += 1
                    continue
                if held is None:
                    result.added += 1
                    kept[key] = (line, row, folder)
                    continue
                newer = (row.ok, row.started) > (held.ok, held.started)
                loser = held_in if newer else folder
                result.conflicts.append(f"{kind.name(row)}: in {held_in} and {folder}; that of {loser} is left out")
                if newer:
                    kept[key] = (line, row, folder)
        lines = [*older, *(line for line, _, _ in kept.values())]
        if lines != [line for line, _ in own]:
            replace_atomically(store.path, b"".join(line + b"\n" for line in lines))
