"""The writers of files for other programs: CSV, and JSON for pytest-benchmark's comparison. Their table: formats."""

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from typing import Any

from harness.analysis.weight_marks import mark_behind, weight_marks
from harness.files import write_output
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.report import frame


def write_csv(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal, path: Path) -> None:
    """One row per cell, failures too, in the columns of harness.report.frame; to six figures.

    Replaces `path` whole or not at all, as all writers here do. Raises UserError where it cannot be written.
    """
    import pandas

    data = pandas.DataFrame(frame.summary_frame(rows, goal, results), columns=list(frame.COLUMNS))
    write_output(path, data.to_csv(index=False, float_format="%.6g"))


def write_benchmark(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal, path: Path) -> None:
    """The measured cells as pytest-benchmark writes its own, so that `pytest-benchmark compare A B` reads them.

    A round is one micro-step (forward and backward of one micro-batch), in seconds. The format has no place for
    accuracies and a goal. Raises UserError where `path` cannot be written.
    """
    marks = weight_marks(rows)
    # The keys of pytest-benchmark's own JSON.
    document = {
        "machine_info": _machine(rows),
        "commit_info": {"id": next((row.commit for row in rows if row.commit), "unknown"), "dirty": False},
        "benchmarks": [_benchmark(row, mark_behind(row, marks)) for row in rows if row.ok],
        "datetime": datetime.now(UTC).isoformat(),
        "version": _benchmark_version(),
    }
    write_output(path, json.dumps(document, indent=1))


def _benchmark(row: Measurement, mark: str) -> dict[str, Any]:
    """One entry of pytest-benchmark's "benchmarks", in the fields of its version 5; `mark` tells its weights apart."""
    cell = row.cell
    name = f"{cell.model.name}-{cell.label}{mark}-{cell.context}"
    return {
        "group": f"{cell.model.name} at {cell.context}",
        "name": f"micro_step[{name}]",
        "fullname": f"harness::micro_step[{name}]",
        "params": {"model": cell.model.name, "precision": cell.precision, "context": cell.context},
        "param": name,
        "extra_info": {"weights": "random" if cell.weights == "random" else "loaded", "key": row.key},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 3,
            "max_time": row.wall_s or 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _stats(list(row.micro_s)),
    }


def _stats(data: list[float]) -> dict[str, Any]:
    """pytest-benchmark's statistics of `data` in seconds; of one value it has no spread either."""
    ordered = sorted(data)
    several = data if len(data) > 1 else data * 2
    mean, deviation = fmean(data), stdev(several)
    # Tukey's fences: what lies over 1.5 interquartile ranges outside the quartiles is an outlier.
    q1, _, q3 = quantiles(sorted(several), n=4, method="inclusive")
    iqr = q3 - q1
    inside = [v for v in ordered if q1 - 1.5 * iqr <= v <= q3 + 1.5 * iqr]
    iqr_outliers = len(data) - len(inside)
    stddev_outliers = sum(abs(v - mean) > deviation for v in data)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": median(data),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": inside[0],
        "hd15iqr": inside[-1],
        "ops": 1 / mean,
        "total": sum(data),
        "iterations": 1,
        "data": data,
    }


def _machine(rows: Sequence[Measurement]) -> dict[str, Any]:
    """pytest-benchmark's "machine_info"; the measured devices stand where it has the CPU's brand."""
    devices = sorted({row.cell.device_name for row in rows})
    return {
        "node": "",
        "processor": platform.processor(),
        "machine": platform.machine(),
        "python_implementation": platform.python_implementation(),
        "python_version": platform.python_version(),
        "system": platform.system(),
        "release": platform.release(),
        "cpu": {"brand_raw": ", ".join(devices)},
    }


def _benchmark_version() -> str:
    try:
        return metadata.version("pytest-benchmark")
    except metadata.PackageNotFoundError:
        return "5.0.0"  # the format's, which is all that readers look at
