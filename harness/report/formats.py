"""The output formats, by name. Another one is a row here and its writer; `bench` writes all of them.

    FORMATS["csv"].write(rows, results, goal, Path("t4.csv"))

Those of predictions are in harness.report.predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import unknown
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.report.arms_csv import write_arms
from harness.report.export import write_benchmark, write_csv


@dataclass(frozen=True)
class Format:
    """The name of the file in a results folder, and what writes it: takes (rows, results, goal, path), or (predictions,
    goal, path) for predictions; replaces `path` whole or not at all; raises UserError where it cannot be written."""

    file_name: str
    write: Callable[..., None]


FORMATS = {
    "csv": Format("summary.csv", write_csv),
    "arms": Format("arms.csv", write_arms),
    "pytest-benchmark": Format("benchmark.json", write_benchmark),
}


def write(name: str, rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal, folder: Path) -> Path:
    """Writes the rows and accuracies in the format `name` into `folder`, and returns the file's path.

    Raises UserError for a name that FORMATS lacks and for a folder that cannot be written.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    path = folder / FORMATS[name].file_name
    FORMATS[name].write(rows, results, goal, path)
    return path
