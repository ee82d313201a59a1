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


def merge(folders: Sequence[Path], into: Path) -> Merged:
    """Merges the records of `folders` into the folder `into`, which may have one already.

    Raises UserError where a folder has no record, or its rows were made under another rule, or are of another device.
    """
    for folder in folders:
        if not any((folder / kind.rows.name).is_file() for kind in _KINDS):
            raise UserError(f"{folder}: has no record; name folders that hold one, as results/tesla-t4")
    result = Merged()
    # All is read and checked before anything is written.
    parts = [(kind, _parts(kind, [into, *folders])) for kind in _KINDS]
    for kind, sources in parts:
        _must_be_alike(kind, sources)
    for kind, sources in parts:
        if any(rows for _, rows, _ in sources[1:]):
            _merge(kind, sources, into, result)
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


def _must_be_alike(kind: _Kind, sources: Sequence[_Part]) -> None:
    """Raises UserError for rows of another rule or device: they would stand side by side as if they were alike."""
    devices: dict[str, Path] = {}
    for folder, rows, _ in sources:
        for _, row in rows:
            rule = None if row is None else row.rule
            if rule != kind.rows.rule:
                theirs = "a later version's" if rule is None else f"rule {rule}'s"
                raise UserError(
                    f"{folder}/{kind.rows.name}: has rows of {theirs}, and this version's rule is {kind.rows.rule}; "
                    "merge them with the version that wrote them, or measure them again"
                )
            devices.setdefault(kind.device(row), folder)
    if len(devices) > 1:
        (first, a), (second, b), *_ = devices.items()
        raise UserError(
            f"{a} is of {first!r}, and {b} of {second!r}: a record is of one device; merge each into its own"
        )


def _merge(kind: _Kind, sources: Sequence[_Part], into: Path, result: Merged) -> None:
    store = Store(into, kind=kind.rows)
    with store.locked():
        # What was added since it was read counts too.
        _, own, _ = _parts(kind, [into])[0]
        kept = {row.key: (line, row, into) for line, row in own if row is not None}
        for folder, rows, _ in sources[1:]:
            # The newest row of a folder answers for its key.
            for key, (line, row) in {row.key: (line, row) for line, row in rows}.items():
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
        lines = [line for line, _, _ in kept.values()]
        if lines != [line for line, _ in own]:
            replace_atomically(store.path, b"".join(line + b"\n" for line in lines))
