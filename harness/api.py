"""The verbs as functions, for notebooks; options have the names of the command line.

    import harness

    record = harness.bench("qwen-0.5b", contexts=[256, 512], precisions=["bf16", "int4"])
    record.frame[["precision", "context", "hours_mid", "verdict"]]

Progress goes to the console, as the verbs' own does. Raises harness.UserError, with a message of one line, for
invalid input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import unknown
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.records.store import NOTHING, LeftOut

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from harness.analysis.ranking import Ranking
    from harness.predict.prediction import Prediction
    from harness.predict.query import Unpredictable
    from harness.records.imported import ImportedRun
    from harness.records.solving import SolvedTask
    from harness.report.compare import Compared


@dataclass(frozen=True)
class Record:
    """Rows of a record, the accuracies with them, and the goal that they are judged by; `left_out` is what of it is not
    used."""

    folder: Path
    rows: list[Measurement]
    results: list[ArmResult]
    goal: Goal
    left_out: LeftOut = NOTHING

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per cell, in the columns of summary.csv (results/README.md)."""
        import pandas

        from harness.report import frame

        return pandas.DataFrame(frame.summary_frame(self.rows, self.goal, self.results), columns=list(frame.COLUMNS))

    @property
    def verdict(self) -> str:
        """What `harness pick` ends with: which candidate to take and why, or how far off the nearest is."""
        return self._ranking.why

    @property
    def pick(self) -> dict[str, Any]:
        """Options of `solve` for the candidate that `verdict` names: the one to take, else the one nearest to the
        budget; empty where nothing was measured."""
        from harness.solve import recipe_file

        named = self._ranking.named
        return recipe_file.settings_of(named.in_its_cell()) if named else {}

    def plot(self) -> "Figure":
        """Memory, predicted and measured, and hours, one bar per cell. Raises UserError without matplotlib."""
        from harness.report import plots

        return plots.measured(self.frame, self.goal.budget_hours)

    @property
    def _ranking(self) -> "Ranking":
        from harness.analysis.ranking import candidates, rank_candidates

        return rank_candidates(candidates(self.rows, self.results, self.goal), self.goal)

    def write_page(self, path: str | Path) -> None:
        """Writes the record as one HTML file without network (docs/report.md), judged by this goal."""
        from harness.report.page.judged import Content, Judged
        from harness.report.page.render import write_page

        content = Content.of(self.folder, self.rows, self.results, self.left_out)
        write_page(Judged.of(content, self.goal), Path(path))


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

    @property
    def advice(self) -> str:
        """One sentence: which model to choose, and on which of the cards."""
        from harness.predict import choice
        from harness.predict.prediction import Prediction

        return choice.advice([answer for answer in self.answers if isinstance(answer, Prediction)], self.goal)

    def plot(self) -> "Figure":
        """Hours against memory, a colour per card. Raises UserError without matplotlib."""
        from harness.report import plots

        return plots.predicted(self.frame, self.goal.budget_hours)


@dataclass(frozen=True)
class Imported:
    """Runs of others' logs, each with its prediction, and why the other logs were put aside."""

    runs: "list[ImportedRun]"
    predictions: "list[Prediction]"
    aside: list[str]
    folders: list[Path]

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per run: its log's seconds per step and allocator's peak, and what is predicted of them."""
        import pandas

        from harness.predict.imported import peak_as_logged

        rows = [
            {
                "model": run.cell.model.name,
                "card": run.cell.device_name,
                "precision": run.cell.precision,
                "context": run.cell.context,
                "tokens_per_step": run.tokens_per_step,
                "step_s": run.step_s,
                "predicted_step_s": predicted.step_s,
                "peak_bytes": run.peak_bytes,
                "predicted_peak_bytes": peak_as_logged(run, predicted),
                "source": run.source,
            }
            for run, predicted in zip(self.runs, self.predictions, strict=True)
        ]
        return pandas.DataFrame(rows)


@dataclass(frozen=True)
class Solved:
    """A run over a task set: its submission, one row per attempt at a task, and the lines that `harness solve` ends
    with."""

    submission: Path
    folder: Path
    rows: "list[SolvedTask]"
    summary: str

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per attempt: task, attempt, status, seconds of training and of answers, steps, views, confidence."""
        import pandas

        from harness.records.solving import confidence

        columns = ("task", "attempt", "status", "train_s", "answer_s", "steps", "views", "cut")
        rows = [{name: getattr(row, name) for name in columns} | {"confidence": confidence([row])} for row in self.rows]
        return pandas.DataFrame(rows, columns=[*columns, "confidence"])


def bench(*models: str, accuracy: bool = True, **options: Any) -> Record:
    """Profiles `models` (by default models.yaml's), and fine-tunes those with weights; see `harness bench --help`.

    `options` are those of the command line, with underscores: contexts, precisions, budget_hours, results ...
    """
    from harness import pipeline
    from harness.cli.bench import configure

    config, catalog = configure(list(models), **_taken_by(configure, options))
    with _progress(config.goal.steps) as progress:
        result = pipeline.bench(config, catalog, progress, accuracy=accuracy)
    return Record(result.swept.folder, result.swept.rows, result.results, config.goal)


def ttft(model: str | None = None, **options: Any) -> list[ArmResult]:
    """Fine-tunes a model with weights on ARC tasks, arm by arm; see `harness ttft --help`."""
    from harness.cli.ttft import configure
    from harness.tune import run

    config = configure(model, **_taken_by(configure, options))
    with _progress(config.steps) as progress:
        return run.run(config, progress).rows


def solve(model: str | None = None, **options: Any) -> Solved:
    """Fine-tunes on and answers every task of a set before a deadline, and writes Kaggle's submission; see
    `harness solve --help`. Called again with the same options it goes on, and keeps to the first deadline."""
    from io import StringIO

    from harness.cli.solve import configure
    from harness.report import style
    from harness.report.solving import SolveLine, summary
    from harness.solve import run

    config, lines = configure(model, **_taken_by(configure, options)), StringIO()
    with SolveLine(style.console()) as line:
        result = run.run(config, line)
    summary(result, config, style.PlainConsole(file=lines, width=120))
    return Solved(config.out, result.folder, result.rows, lines.getvalue().strip())


def predict(*models: str, **options: Any) -> Predictions:
    """Predicts time and memory on cards that are not at hand; see `harness predict --help`."""
    from harness.cli.predict import configure
    from harness.hardware.environment import versions
    from harness.predict.query import predict_all
    from harness.predict.trace_pool import TracePool

    request = configure(list(models), **_taken_by(configure, options))
    with TracePool(versions()) as tracers, _progress(request.goal.steps) as progress:
        return Predictions(predict_all(request, tracers, partial(progress.count, "tracing")), request.goal)


def compare(before: str | Path, after: str | Path, **options: Any) -> "Compared":
    """How the record in the folder `after` stands against the one in `before`: its `sentences`, its `frame`, and
    whether it `passed`; `options` may say tolerance, deviations, drift, any_device and allow_missing. See
    `harness compare --help`."""
    from harness.cli.compare import configure

    return configure(Path(before), Path(after), **_taken_by(configure, options))


def import_log(*files: str | Path, **options: Any) -> Imported:
    """Takes in others' training logs; see `harness import-log --help`. A log that cannot be used is put aside, and the
    only one raises UserError."""
    from harness.cli.import_log import take

    result = take([Path(file) for file in files], **_taken_by(take, options))
    runs, predictions = [run for run, _ in result.pairs], [predicted for _, predicted in result.pairs]
    return Imported(runs, predictions, result.aside, result.folders)


def load(folder: str | Path | None = None, **goal: Any) -> Record:
    """The record in `folder`, by default the newest one under results/; `goal` may say budget_hours, steps and
    test_tasks. Needs no torch."""
    from harness.catalog import models
    from harness.cli import parse
    from harness.text import say_once

    judged_by = parse.goal(models.load(), **_taken_by(parse.goal, goal))
    record = parse.record(Path(folder) if folder else None)
    for line in record.left_out.sentences(str(record.folder)):
        say_once(line)
    return Record(record.folder, record.rows, record.results, judged_by, record.left_out)


def _taken_by(configure: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` under the names of `configure`, which has either context or contexts where the command line takes both;
    folders and files as paths, which a notebook gives as text. Raises UserError for a name that is no option."""
    _, *names = signature(configure).parameters  # the first are the models or folders
    taken = {}
    for given, value in options.items():
        name = next((name for name in (given, f"{given}s", given.removesuffix("s")) if name in names), None)
        if not name:
            raise unknown("option", given, names)
        # An empty text is no path.
        taken[name] = Path(value) if name in ("results", "models_file", "out", "tokens_per_task") and value else value
    return taken


def _progress(steps: int):
    from harness.report import style
    from harness.report.progress import ProgressLine

    return ProgressLine(style.console(), steps)
