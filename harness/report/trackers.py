"""Writes a record through the library of a tracker of experiments, into a store of files in the results folder.

python -m harness report --results FOLDER --track tensorboard

Nothing goes over a network, and nothing of a tracker is imported before it is asked for. A run is written once, however
often this is called: its id stands in the file `written.txt` of the store then.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from harness.errors import UserError, first_line, unknown
from harness.report import tracked
from harness.report.page.beside import read
from harness.report.page.judged import Content
from harness.report.tracked import TrackedRun

PROJECT = "ttft-bench"
_WRITTEN = "written.txt"


@dataclass(frozen=True)
class Tracker:
    """`module` is imported, `package` installs it, `write` takes (store, runs, done), and calls done(run) after each;
    `show` is the command that shows the store "{}"."""

    module: str
    package: str
    write: Callable[[Path, Sequence[TrackedRun], Callable[[TrackedRun], None]], None]
    show: str


def check(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that is unknown or not installed. Imports nothing, for some take seconds."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        tracker = TRACKERS[name]
        spec = find_spec(tracker.module)
        # A folder of that name, in which such a tracker keeps its files, is no library.
        if spec is None or spec.origin is None:
            raise UserError(
                f"--track {name} needs {tracker.package}, which is not installed: pip install {tracker.package}"
            )


def write(name: str, content: Content) -> tuple[int, Path]:
    """Writes what the store of `name` in the content's folder lacks; how many runs these were, and the store.

    Raises UserError where that cannot be done.
    """
    check([name])
    store = content.folder / name
    made = tracked.runs(content.rows, content.results, content.solved)
    try:
        store.mkdir(parents=True, exist_ok=True)
        log = store / _WRITTEN
        written = set(log.read_text(encoding="utf-8").split()) if log.exists() else set()
        new = [run for run in made if run.id not in written]
        with log.open("a", encoding="utf-8") as file:

            def done(run: TrackedRun) -> None:
                file.write(f"{run.id}\n")
                file.flush()

            # Their own lines would come between the tables.
            with _offline(store), redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if new:
                    TRACKERS[name].write(store.resolve(), new, done)
    except OSError as problem:
        raise UserError(f"{problem.filename or store}: cannot be written ({problem.strerror or problem})") from None
    except UserError:
        raise
    # What such a library raises is its own affair; the record is whole whatever it is.
    except Exception as problem:
        remedy = f"try another version of {TRACKERS[name].package}, or another tracker"
        raise UserError(f"{name}: {type(problem).__name__}: {first_line(problem)}; {remedy}") from None
    return len(new), store


def show(names: Sequence[str], folder: Path, out: Console) -> None:
    """Writes the record in `folder` to each tracker, and prints where that is and what shows it. Raises UserError as
    `write` does."""
    content = read(folder) if names else None
    for name in names:
        assert content is not None
        count, store = write(name, content)
        line = f"{name}: {count} new runs in {store}; {TRACKERS[name].show.format(store)}"
        out.print(line, soft_wrap=True, markup=False)


def show_after(names: Sequence[str], folder: Path, out: Console) -> None:
    """The same at the end of a run, which is done whatever comes of it: what fails is a line on stderr."""
    try:
        show(names, folder, out)
    except UserError as problem:
        print(f"not tracked: {problem}; the record is whole: report --track writes it again", file=sys.stderr)


@contextmanager
def _offline(store: Path) -> Iterator[None]:
    """The trackers' own switches against servers, telemetry and uploads, and their folder, while they write."""
    own = {
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_CONFIGURE_LOGGING": "false", "DO_NOT_TRACK": "true",
        "WANDB_MODE": "offline", "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false", "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False",
        "TRACKIO_DIR": str(store.resolve()),
    }  # fmt: skip
    servers = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "WANDB_RUN_ID", "WANDB_RESUME")
    before = {name: os.environ.get(name) for name in (*own, *servers)}
    for name in servers:
        os.environ.pop(name, None)
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# ---- The trackers


def _tensorboard(store: Path, runs: Sequence[TrackedRun], done: Callable[[TrackedRun], None]) -> None:
    """Events in a folder per run: scalars by step, metrics at step 0, parameters in the plugin of hyperparameters."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run in runs:
        writer = EventFileWriter(str(store / run.id))
        try:
            params = hparams_pb({**run.params, "name": run.name}, trial_id=run.id, start_time_secs=run.started_s)
            writer.add_event(Event(wall_time=run.started_s, summary=params))
            for step, values in [(0, run.metrics), *run.points()]:
                scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
                writer.add_event(Event(wall_time=run.started_s, step=step, summary=Summary(value=scalars)))
        finally:
            writer.close()
        done(run)


def _mlflow(store: Path, runs: Sequence[TrackedRun], done: Callable[[TrackedRun], None]) -> None:
    """A run per run in one experiment, in SQLite, or in files where mlflow-skinny is all there is."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    database = find_spec("sqlalchemy") is not None
    client = MlflowClient(tracking_uri=f"sqlite:///{store}/mlflow.db" if database else store.as_uri())
    experiment = client.get_experiment_by_name(PROJECT)
    artifacts = (store / "artifacts").as_uri()
    number = experiment.experiment_id if experiment else client.create_experiment(PROJECT, artifact_location=artifacts)
    for run in runs:
        at = int(1000 * run.started_s)
        made = client.create_run(number, start_time=at, run_name=run.name, tags={"kind": run.kind, "id": run.id})
        points = [(0, run.metrics), *run.points()]
        metrics = [Metric(name, value, at, step) for step, own in points for name, value in own.items()]
        params = [Param(name, value) for name, value in run.params.items()]
        # So many it takes at once.
        client.log_batch(made.info.run_id, params=params[:100])
        for start in range(0, len(metrics), 1000):
            client.log_batch(made.info.run_id, metrics=metrics[start : start + 1000])
        client.set_terminated(made.info.run_id, end_time=at)
        done(run)


def _wandb(store: Path, runs: Sequence[TrackedRun], done: Callable[[TrackedRun], None]) -> None:
    """An offline run per run; `wandb sync` takes them to a server when their owner wants that."""
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
        x_disable_meta=True, x_disable_machine_info=True,
    )  # fmt: skip
    for run in runs:
        made = wandb.init(
            project=PROJECT, dir=str(store), id=run.id, name=run.name, job_type=run.kind, config=dict(run.params),
            mode="offline", reinit="finish_previous", settings=settings,
        )  # fmt: skip
        for step, values in run.points():
            made.log(values, step=step)
        made.summary.update(dict(run.metrics))
        made.finish()
        done(run)


def _trackio(store: Path, runs: Sequence[TrackedRun], done: Callable[[TrackedRun], None]) -> None:
    """Runs in trackio's own SQLite file. Its folder is fixed when it is imported."""
    import trackio
    from trackio.utils import TRACKIO_DIR

    if Path(TRACKIO_DIR).resolve() != store:
        raise UserError(f"trackio writes to {TRACKIO_DIR} in this process already; use harness report --track trackio")
    for run in runs:
        trackio.init(
            PROJECT, name=f"{run.name} {run.id}", group=run.kind, config=dict(run.params), embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        for step, values in [(0, run.metrics), *run.points()]:
            if values:
                trackio.log(dict(values), step=step)
        trackio.finish()
        done(run)


TRACKERS = {
    "mlflow": Tracker("mlflow", "mlflow", _mlflow, "mlflow ui --backend-store-uri sqlite:///{}/mlflow.db"),
    "wandb": Tracker("wandb", "wandb", _wandb, "wandb sync {}/wandb/offline-run-*"),
    "trackio": Tracker("trackio", "trackio", _trackio, "TRACKIO_DIR={} trackio show"),
    "tensorboard": Tracker("tensorboard", "tensorboard", _tensorboard, "tensorboard --logdir {}"),
}
