"""The rows of results/reference that have a calibration of their own: this project's, and ARC's on two T4s.

Each is predicted with its model left out of the calibration.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.kept_traces import KeptTraces
from harness.catalog import accelerators, efficiency, precisions
from harness.catalog import models as catalog
from harness.catalog.accelerators import Accelerator
from harness.catalog.recipes import RecipeOptions, resolve
from harness.predict import calibration, calibration_files, prediction, roofline, step_seconds
from harness.predict.calibration import Calibration, Point
from harness.records import store
from harness.records.cell import REFERENCE as REFERENCE_STEP
from harness.records.measurement import Measurement

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
ARC24 = REFERENCE / "published" / "rows.csv"
_SWEEPS = "records*.jsonl"  # of one machine: the same cells, measured at different times
# Ten steps times a hundred came out 27 % and 34 % below the two real runs of 1000 that the same source tells of. A
# calibration is for long runs, so ten steps are taken for so much of what they would be in one.
_TEN_STEPS_SHARE = 0.695


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure and its prediction. `factor` is that of the prediction's 95 % interval, and `rule` what the one-line
    rule says; None where there is none."""

    name: str
    card: str
    group: str  # measured, or the class of a published row
    unit: str
    real: float
    predicted: float
    factor: float | None = None
    rule: float | None = None
    evidence: str = ""

    @property
    def error(self) -> float:
        return self.predicted / self.real - 1

    @property
    def held(self) -> bool:
        """Whether the interval holds the figure."""
        return self.factor is not None and abs(math.log(self.predicted / self.real)) <= math.log(self.factor)


def folders() -> list[Path]:
    """Those with rows of this project's own."""
    return [folder for folder in sorted(REFERENCE.iterdir()) if (folder / store.NAME).exists()]


def measured(folder: Path, kept: KeptTraces) -> tuple[list[Row], Calibration] | None:
    """Seconds and memory of each cell, and the calibration on all; None without two models."""
    rows = middle([store.read(path)[0] for path in sorted(folder.glob(_SWEEPS))])
    if len({row.cell.model.name for row in rows if row.ok}) < 2:
        return None
    device, seen = calibration_files.points_of_rows(rows, trace_all=kept.trace_all)
    points, held = [p for _, p, _ in seen], [h for _, _, h in seen]
    fitted = calibration_files.calibrated(
        rows, f"{len(seen)} cells of results/reference/{folder.name}", trace_all=kept.trace_all
    )
    seconds_factor, memory_factor = math.exp(1.96 * fitted.error), math.exp(1.96 * fitted.memory_error)
    common = {"card": folder.name, "group": "measured", "evidence": calibration.MEASURED_HERE}
    out = []
    assumed = efficiency.slowdowns(device)
    for (row, _, _), (point, slow) in zip(seen, calibration.left_out(device.kind, points, assumed), strict=True):
        predicted_s = roofline.seconds(point.nominal, slow)
        out.append(
            Row(name=name_of(row), unit="s", real=point.seconds, predicted=predicted_s, factor=seconds_factor, **common)
        )
    for (row, _, _), (one, allocator) in zip(seen, calibration.memory_left_out(device.kind, held), strict=True):
        if one.peak > 0:
            gib = {"real": one.peak / 2**30, "predicted": allocator.peak(one) / 2**30}
            out.append(Row(name=name_of(row), unit="GiB", factor=memory_factor, **gib, **common))
    return out, fitted


def middle(sweeps: Sequence[Sequence[Measurement]]) -> list[Measurement]:
    """Of each cell the row that took the middle time of all sweeps: on a shared machine one may be off by a fifth."""
    by_cell: dict[str, list[Measurement]] = {}
    for row in (row for rows in sweeps for row in rows if row.ok):
        by_cell.setdefault(row.key, []).append(row)
    return [sorted(rows, key=lambda row: median(row.micro_s))[(len(rows) - 1) // 2] for rows in by_cell.values()]


def name_of(row: Measurement) -> str:
    return f"{row.cell.model.name} {row.cell.precision} {row.cell.context}"


def arc24_points(kept: KeptTraces) -> list[tuple[str, Accelerator, Point]]:
    """(name, card, point) of what others published: minutes for ten steps over ARC's lengths up to the context.

    They were timed on ten steps or in the mean of a thousand.
    """
    models, points = catalog.load(), []
    for row in _arc24_rows():
        card = accelerators.find(row["accelerator"])
        precision = replace(precisions.find(row["precision"]), compute=row["compute"])
        recipe = resolve(models.recipe, RecipeOptions(name=row["recipe"]), precision.quantized)
        keys = prediction.trace_keys(models.find(row["model"]), precision, recipe, card, int(row["context"]))
        traces = kept.trace_all(list(keys.values()))
        if wrong := [each for each in traces if isinstance(each, str)]:
            raise SystemExit(f"{row['model']} {row['precision']}: {wrong[0]}")
        by_length = {n: trace.computed_in(row["compute"]) for n, trace in zip(keys, traces, strict=True)}
        minutes, rounding = float(row["ten_steps_min"]), float(row["rounding_min"])
        # Uniform within its rounding; and such a run is timed to some 5 %.
        sigma = math.hypot(math.log(1 + rounding / minutes) / math.sqrt(3), 0.05)
        nominal = step_seconds.nominal_over_lengths(by_length, card, int(row["context"]))
        point = Point(row["model"], nominal, minutes / _share(row) * 60 / 160, sigma)
        name = f"{row['model']} {row['precision']} {row['context']}, computed in {row['compute']}, {row['timed']}"
        points.append((name, card, point))
    return points


def _arc24_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(ARC24.read_text(encoding="utf-8").splitlines()))


def arc24(kept: KeptTraces) -> tuple[list[Row], Calibration]:
    """As `measured`, of the rows of `arc24_points`, in minutes for ten steps."""
    named = arc24_points(kept)
    points, assumed = [point for *_, point in named], efficiency.slowdowns(accelerators.find("t4"))
    source = f"{len(points)} published rows, results/reference/published"
    fitted = calibration.fit("t4", accelerators.CUDA, points, source=source, step=REFERENCE_STEP)
    left_out = calibration.left_out(accelerators.CUDA, points, assumed)
    rows = []
    for raw, (name, _, _), (point, slow) in zip(_arc24_rows(), named, left_out, strict=True):
        row = Row(
            name=name,
            card="t4",
            group="published",
            unit="min",
            real=float(raw["ten_steps_min"]),
            predicted=roofline.seconds(point.nominal, slow) * _share(raw) * 160 / 60,
            factor=math.exp(1.96 * fitted.error),
            evidence=calibration.MEASURED_ELSEWHERE,
        )
        rows.append(row)
    return rows, fitted


def _share(row: dict[str, str]) -> float:
    return _TEN_STEPS_SHARE if row["timed"] == "10 steps" else 1.0
