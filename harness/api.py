"""The verbs as functions, for notebooks; options have the names of the command line.

    import harness

    record = harness.bench("qwen-0.5b", contexts=[256, 512], precisions=["bf16", "int4"])
    record.frame[["precision", "context", "hours_mid", "verdict"]]

Progress goes to the console, as the verbs' own does. Raises harness.UserError, with a message of one line, for
invalid input.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement

if TYPE_CHECKING:
    import pandas

    from harness.predict.prediction import Prediction
    from harness.predict.query import Unpredictable


@dataclass(frozen=True)
class Record:
    """Rows of a record, the accuracies with them, and the goal that they are judged by."""

    folder: Path
    rows: list[Measurement]
    results: list[ArmResult]
    goal: Goal

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per cell, in the columns of summary.csv (results/README.md)."""
        import pandas

        from harness.report import frame

        return pandas.DataFrame(frame.summary_frame(self.rows, self.goal, self.results), columns=list(frame.COLUMNS))


@dataclass(frozen=True)
class Predictions:
    """One answer per cell: a prediction, or why there is none."""

    answers: "list[Prediction | Unpredictable]"
    goal: Goal

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per prediction, in the columns of `harness predict --csv`."""
        import pandas

        from harness.report import predictions

        return pandas.DataFrame(predictions.flat(self.answers, self.goal), columns=list(predictions.COLUMNS))


def bench(*models: str, accuracy: bool = True, **options: Any) -> Record:
    """Profiles `models` (by default models.yaml's), and fine-tunes those with weights; see `harness bench --help`.

    `options` are those of the command line, with underscores: contexts, precisions, budget_hours, results ...
    """
    from harness import pipeline
    from harness.cli.bench import configure

    config, catalog = configure(list(models), **_paths(options))
    with _progress(config.goal.steps) as progress:
        result = pipeline.bench(config, catalog, progress, accuracy=accuracy)
    return Record(result.swept.folder, result.swept.rows, result.results, config.goal)


def ttft(model: str | None = None, **options: Any) -> list[ArmResult]:
    """Fine-tunes a model with weights on ARC tasks, arm by arm; see `harness ttft --help`."""
    from harness.cli.ttft import configure
    from harness.tune import run

    config = configure(model, **_paths(options))
    with _progress(config.steps) as progress:
        return run.run(config, progress).rows


def predict(*models: str, **options: Any) -> Predictions:
    """Predicts time and memory on cards that are not at hand; see `harness predict --help`."""
    from harness.cli.predict import configure
    from harness.hardware.environment import versions
    from harness.predict.query import predict_all
    from harness.predict.trace_pool import TracePool

    request = configure(list(models), **_paths(options))
    with TracePool(versions()) as tracers, _progress(request.goal.steps) as progress:
        return Predictions(predict_all(request, tracers, partial(progress.count, "tracing")), request.goal)


def load(folder: str | Path | None = None, **goal: Any) -> Record:
    """The record in `folder`, by default the newest one under results/; `goal` may say budget_hours, steps and
    test_tasks. Needs no torch."""
    from harness.catalog import models
    from harness.cli import parse

    record = parse.record(Path(folder) if folder else None)
    return Record(record.folder, record.rows, record.results, parse.goal(models.load(), **goal))


def _paths(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with folders and files as paths, which a notebook gives as text."""
    # An empty text is no path.
    named = {name: Path(options[name]) for name in ("results", "models_file") if options.get(name)}
    return options | named


def _progress(steps: int):
    from harness.report import style
    from harness.report.progress import ProgressLine

    return ProgressLine(style.console(), steps)
