"""A record as trackers of experiments have it: one run per cell, per arm, and for the newest run of solve.

A run has parameters (what was asked for), metrics (what came out) and curves (values by step), under the names of the
CSV where that has the same. A failure is a run too, with its status and reason.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from harness.analysis.projection import relative_half_width, step_seconds, tokens_per_second
from harness.records.arm import ArmResult
from harness.records.cell import Recipe
from harness.records.measurement import Measurement
from harness.records.solving import SolvedTask, confidence
from harness.records.store import slug
from harness.records.stored import to_stored
from harness.report.format import GIB, cell_name
from harness.text import visible

CELL, ARM, SOLVE = "cell", "arm", "solve"
_LONGEST = 250  # letters of a text: what the narrowest tracker takes
Curve = tuple[tuple[int, float], ...]  # (step, value)


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One run of a tracker. `id` is the same whenever it is written; a cell that is measured again has another."""

    id: str
    kind: str
    name: str
    started_s: float  # since the epoch
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Curve]

    def points(self) -> Iterable[tuple[int, dict[str, float]]]:
        """The curves' values, those of one step together, in the order of the steps."""
        by_step: dict[int, dict[str, float]] = {}
        for name, curve in self.curves.items():
            for step, value in curve:
                by_step.setdefault(step, {})[name] = value
        return sorted(by_step.items())


def runs(
    rows: Sequence[Measurement], results: Sequence[ArmResult], solved: Sequence[SolvedTask] = ()
) -> list[TrackedRun]:
    """The runs of a record; `solved` are the rows of one run of solve."""
    made = [_of_cell(row) for row in rows] + [_of_arm(row) for row in results]
    return made + ([_of_solve(solved)] if solved else [])


def _of_cell(row: Measurement) -> TrackedRun:
    cell = row.cell
    params = _origin(row) | {
        "model": cell.model.name,
        "precision": cell.precision,
        "compute_dtype": cell.compute_dtype,
        "context": cell.context,
        "weights": cell.weights,
        "device": cell.device_name,
        "kernels": row.kernels,
        "seed": row.seed,
        **_recipe(cell.recipe),
    }
    peak_gib = row.peak_bytes / GIB if row.peak_bytes else None
    metrics: dict[str, float | None] = {"ok": row.ok, "peak_gib": peak_gib}
    curves: dict[str, Sequence[float]] = {}
    if row.ok:
        metrics |= {
            "step_s": step_seconds(row),
            "steps_per_minute": 60 / step_seconds(row),
            "micro_step_mean_s": fmean(row.micro_s),
            "half_width": relative_half_width(row),
            "tokens_per_s": tokens_per_second(row),
            "load_s": row.load_s,
        }
        curves = {"micro_step_s": row.micro_s, "loss": row.losses}
    return _run(CELL, row, cell_name(cell), params, metrics, {name: _by_number(own) for name, own in curves.items()})


def _of_arm(row: ArmResult) -> TrackedRun:
    spec = row.spec
    names = ("weights", "precision", "compute_dtype", "context", "encoding", "views", "scope", "too_long", "decode",
             "select", "seed")  # fmt: skip
    params = _origin(row) | {
        "model": spec.model.name,
        "arm": row.arm,
        "device": spec.device_name,
        "set": spec.dataset,
        "tasks": len(spec.tasks),
        **{name: getattr(spec, name) for name in names},
        **_recipe(spec.recipe),
    }
    metrics: dict[str, float | None] = {"ok": row.ok}
    curves: dict[str, Curve] = {}
    if row.ok:
        metrics |= {
            "accuracy": row.mean("attempts"),
            "solved": sum(row.solved),
            "views_accuracy": row.mean("views"),
            "cells_accuracy": row.mean("cells"),
            "answer_loss": row.token_loss,
            "grid_nll": row.grid_nll,
            "steps": row.steps,
            "train_s": row.train_s,
            "decode_s_per_task": row.decode_s_per_task,
        }
        curves = {
            "train_loss": _by_number(row.step_losses),
            "curve_loss": _finite((point.steps, point.loss) for point in row.curve_points),
            "curve_accuracy": _finite((p.steps, fmean(p.scores)) for p in row.curve_points if p.scores),
        }
    return _run(ARM, row, f"{spec.model.name} {spec.precision} {row.label}", params, metrics, curves)


def _of_solve(solved: Sequence[SolvedTask]) -> TrackedRun:
    """The run whole; its curves are by task, in the order in which they were begun."""
    ordered = sorted(solved, key=lambda row: row.started)
    first = ordered[0]
    by_task: dict[str, list[SolvedTask]] = {}
    for row in ordered:
        by_task.setdefault(row.task, []).append(row)
    known = [any(row.right) for row in ordered if row.right]
    params = {"run": first.run, "device": first.device_name or first.device, "key": first.run}
    metrics = {
        "tasks": len(by_task),
        "answered": sum(any(any(row.votes) for row in rows) for rows in by_task.values()),
        "right": sum(known) if known else None,
        "train_s": sum(row.train_s for row in ordered),
        "answer_s": sum(row.answer_s for row in ordered),
        "failed": sum(not row.ok for row in ordered),
    }
    curves = {
        "task_s": _by_number([row.seconds for row in ordered]),
        "confidence": _by_number([confidence(rows) for rows in by_task.values()]),
    }
    # Written again after further tasks it is another state of the run.
    state = f"{first.run}-{len(ordered)}"
    return TrackedRun(
        id=slug(f"{SOLVE}-{state}"),
        kind=SOLVE,
        name=f"solve, {len(by_task)} tasks",
        started_s=_seconds(first.started),
        params=_texts(params),
        metrics=_numbers(metrics),
        curves={name: curve for name, curve in curves.items() if curve},
    )


def _run(
    kind: str,
    row: Measurement | ArmResult,
    name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    curves: Mapping[str, Curve],
) -> TrackedRun:
    return TrackedRun(
        id=slug(f"{kind}-{row.key}-{row.started[:19]}"),
        kind=kind,
        name=visible(name)[:_LONGEST],
        started_s=_seconds(row.started),
        params=_texts(params),
        metrics=_numbers(metrics),
        curves={name: curve for name, curve in curves.items() if curve},
    )


def _origin(row: Measurement | ArmResult) -> dict[str, Any]:
    versions = {f"version.{name}": text for name, text in row.versions.items()}
    return {"key": row.key, "status": row.status, "reason": row.reason, "commit": row.commit or "", **versions}


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {f"recipe.{name}": value for name, value in to_stored(recipe).items()}


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Visible texts of a length that trackers take; without empty ones, and names of letters that they take."""
    named = {"".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in name)[:_LONGEST]: value
             for name, value in params.items()}  # fmt: skip
    return {name: visible(str(value))[:_LONGEST] for name, value in named.items() if name and str(value)}


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _by_number(values: Sequence[float]) -> Curve:
    return _finite(enumerate(values, 1))


def _finite(points: Iterable[tuple[int, float | None]]) -> Curve:
    return tuple((step, float(value)) for step, value in points if value is not None and math.isfinite(value))


def _seconds(started: str) -> float:
    """Seconds since the epoch of an ISO date, 0 for a text that is none."""
    try:
        return max(0.0, datetime.fromisoformat(started).timestamp())
    except (ValueError, OverflowError):
        return 0.0
