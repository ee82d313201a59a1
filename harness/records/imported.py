"""Runs of others, as their logs tell of them: one JSON line per run in a folder's imported.jsonl (harness import-log).

Seconds are the mean of a whole run, warm-up and waiting for data included, evaluations not; a cell's context is the
mean of its sequences.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from harness.records.cell import Cell
from harness.records.measurement import Sample, Size
from harness.records.store import Rows
from harness.records.stored import from_stored, to_stored

IMPORTED = "imported"  # evidence: told by somebody's log, not measured by this program
_RULE = 1


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """One run. `cell.device_name` is the accelerator's name, without the number of cards; `peak_bytes` is one card's,
    by torch's allocator (`peak_of`: reserved, or allocated for tensors alone). `source` is the log's file."""

    key: str
    cell: Cell
    step_s: Sample
    tokens_per_step: Annotated[float, Meta(gt=0, le=1e12)]
    steps: Annotated[int, Meta(ge=1, le=10**10)]
    peak_bytes: Size | None = None
    peak_of: str = ""
    tool: str = ""
    one_length: bool = False  # of all sequences: packed ones, or as the user says
    source: str = ""
    notes: tuple[str, ...] = ()
    evidence: str = IMPORTED
    rule: int = _RULE


def key_of(source: str, figures: tuple[float | None, ...]) -> str:
    """The key of a run by its log's file and the `figures` in it, whatever else it is taken for."""
    return hashlib.sha256(json.dumps([source, figures]).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def to_json(row: ImportedRun) -> dict[str, Any]:
    return {"kind": IMPORTED, **to_stored(row)}


def from_json(raw: Any) -> ImportedRun:
    """The run that `to_json` wrote. Raises ValueError where `raw` is none."""
    row = from_stored(raw, ImportedRun)
    if row.cell.recipe.micro_steps_per_step < 1:
        raise ValueError("a step of less than one micro-step")
    if row.cell.context > row.cell.model.max_context:
        raise ValueError("a context beyond the model's window")
    return row


ROWS = Rows("imported.jsonl", to_json, from_json, _RULE)
