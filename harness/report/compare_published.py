"""A record's steps beside a table of published ones, cell by cell: other machines and conditions, so nothing is judged.

python -m harness compare results/my-device results/reference/published
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.text import Text

from harness.analysis.drift import drift
from harness.analysis.projection import relative_half_width, sampling_half_width, step_seconds
from harness.digits import number
from harness.errors import UserError
from harness.files import read_bytes
from harness.records import store
from harness.records.measurement import Measurement
from harness.report.compare_notes import listed
from harness.report.style import plain_table

NAME = "rows.csv"
_SEQUENCES = 16  # of a published step
_MOST_MINUTES = 10**6


@dataclass(frozen=True, kw_only=True)
class PublishedSteps:
    """One row: minutes of ten steps of 16 sequences, rounded by up to `rounding_min` either way. `compute` is the dtype
    of the products."""

    model: str
    precision: str
    compute: str
    context: int
    ten_steps_min: float
    rounding_min: float
    accelerator: str
    source: str

    @property
    def step_s(self) -> float:
        return 6 * self.ten_steps_min

    @property
    def name(self) -> str:
        return f"{self.model} {self.precision} {self.context}"


def table_of(path: Path) -> Path:
    """The table that `path` is, or holds."""
    return path / NAME if path.is_dir() else path


def is_table(path: Path) -> bool:
    """Whether `path` is such a table or a folder that has one and no record."""
    return table_of(path).suffix == ".csv" and table_of(path).is_file() and not (path / store.NAME).exists()


def read(path: Path) -> list[PublishedSteps]:
    """The rows of the table at `path`. Raises UserError for what is none."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()  # a spreadsheet puts a mark before UTF-8
        if rows := [_row(raw) for raw in csv.DictReader(lines)]:
            return rows
        raise ValueError("empty")
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name another table") from None
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"{path}: is no table of published steps; results/reference/published/README.md has its columns"
        ) from None


def _row(raw: dict[str, str]) -> PublishedSteps:
    minutes, rounding = float(raw["ten_steps_min"]), float(raw["rounding_min"])
    if not (0 < minutes < _MOST_MINUTES and 0 <= rounding < minutes):
        raise ValueError("no minutes")
    texts = {name: str(raw[name]) for name in ("model", "precision", "compute", "accelerator", "source")}
    return PublishedSteps(context=int(raw["context"]), ten_steps_min=minutes, rounding_min=rounding, **texts)


def show(rows: Sequence[Measurement], path: Path, out: Console) -> None:
    """Prints the cells of `rows` that the table at `path` has too. Raises UserError where there is none."""
    published = read(path)
    # Of several rows of one cell, as of two versions of torch, the newest counts.
    newest = {
        (row.cell.model.name, row.cell.label, row.cell.context, row.cell.device_name): row for row in rows if row.ok
    }
    pairs = [(row, steps) for steps in published for row in newest.values() if _same(row, steps)]
    if not pairs:
        raise UserError(f"the record has no cell of {path}: {listed(list(dict.fromkeys(s.name for s in published)))}")
    out.print(Text("Published beside measured, not judged: machines, lengths and steps differ.", style="bold"))
    table = plain_table("<model|<prec|seq|A\ns/step|published\ns/step|ratio|95 %|<card")
    several = len({row.cell.device_name for row, _ in pairs}) > 1
    for row, steps in pairs:
        seconds, half, mark = _seconds(row)
        device = f", {row.cell.device_name}" if several else ""
        ratio = steps.step_s / seconds
        # Both errors in the logarithm: A's drift and sampling, and the rounding as if it were a 95 % interval.
        wide = math.exp(min(math.hypot(half, steps.rounding_min / steps.ten_steps_min), 20.0))
        span = f"{number(ratio / wide)} to {number(ratio * wide)}"
        table.add_row(row.cell.model.name + device, row.cell.label, str(steps.context), number(seconds) + mark,
                      number(steps.step_s), number(ratio), span, steps.accelerator)  # fmt: skip
    out.print(table)
    for line in _notes(pairs):
        out.print(Text(f"- {line}"))


def _same(row: Measurement, steps: PublishedSteps) -> bool:
    cell = row.cell
    return (cell.model.name, cell.precision, cell.context) == (steps.model, steps.precision, steps.context)


def _seconds(row: Measurement) -> tuple[float, float, str]:
    """Seconds of a step of 16 sequences and one update, over ARC's lengths or at full contexts, with half of their 95 %
    interval, relative to them, and a mark for full contexts."""
    share, update = _SEQUENCES / row.cell.recipe.sequences_per_step, fmean(row.optimizer_s)
    if row.arc_step_s:
        half = math.hypot(sampling_half_width(row.arc_step_s), 1.96 * drift(row))
        step_s, mark = fmean(row.arc_step_s), ""
    else:
        step_s, half, mark = step_seconds(row), relative_half_width(row), "+"
    return share * max(0.0, step_s - update) + min(step_s, update), half, mark


def _notes(pairs: Sequence[tuple[Measurement, PublishedSteps]]) -> list[str]:
    sources = dict.fromkeys(steps.source for _, steps in pairs)
    devices = dict.fromkeys(row.cell.device_name for row, _ in pairs)
    made = [
        f"A was measured on {listed(list(devices))}; published: {listed(list(sources))}, over ARC's lengths up to the "
        "context.",
        "ratio: published / A; 95 % holds A's sampling error and drift and the rounding of the published minutes.",
    ]
    if any(_seconds(row)[2] for row, _ in pairs):
        made.append("+ at full contexts, which take longer than ARC's lengths.")
    other = dict.fromkeys(
        f"{s.name} {row.cell.compute_dtype}, published {s.compute}"
        for row, s in pairs
        if row.cell.compute_dtype != s.compute
    )
    if other:
        made.append(f"computed in another dtype: {listed(list(other))}.")
    return made
