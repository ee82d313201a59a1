"""A record in trackers of experiments: what a run has, what each library reads back, once each, and no network."""

import json
import math
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.records import cell, curve, result, row

from harness.cli import app
from harness.errors import UserError
from harness.records.arm import ROWS
from harness.records.solving import SolvedTask, key_of
from harness.records.store import Store
from harness.report import tracked, trackers
from harness.report.page.judged import Content
from harness.report.style import PlainConsole
from harness.report.trackers import TRACKERS, Tracker

STARTED = "2026-01-01T00:00:00+00:00"


def rows():
    """A cell that ran, one that failed, and an arm with a curve."""
    failed = row(status="oom", reason="no room \x1b[2J", cell=cell(context=9), started=STARTED)
    return [row(started=STARTED), failed], [result(5, curve_points=curve(10, 2, 3, 4, 5))]


def solved(number, right=()):
    name = f"t{number}"
    return SolvedTask(key=key_of("r", name, 1), run="r", setting="s", task=name, attempt=1, device="cpu",
                      started=f"2026-01-01T00:0{number}:00+00:00", votes=((("1", 2),),), right=right, views=2,
                      train_s=3.0, decode_s=1.0 + number)  # fmt: skip


@pytest.fixture
def content(tmp_path):
    cells, arms = rows()
    return Content(folder=tmp_path, rows=cells, results=arms, solved=[solved(1, (True,)), solved(0)])


@pytest.fixture
def no_network(monkeypatch):
    """Only sockets of this machine's own processes may be opened."""
    real = socket.socket.connect

    def connect(self, address):
        assert self.family == socket.AF_UNIX, f"connects to {address}"
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


# ---- Runs


def test_a_cell_an_arm_and_a_solve_are_a_run_each(content):
    """16 micro-steps of a second are a step; 6 nats per grid; the tasks were begun in the other order."""
    ok, failed, arm, solve = tracked.runs(content.rows, content.results, content.solved)
    assert ok.name == "tiny fp32 1024" and ok.metrics["step_s"] == 16.0 and ok.metrics["peak_gib"] == 1.0
    assert ok.params["recipe.lora_r"] == "32" and ok.params["device"] == "a CPU"
    assert ok.curves["micro_step_s"] == tuple((i, 1.0) for i in range(1, 13))
    assert failed.params["status"] == "oom" and failed.params["reason"] == "no room \\x1b[2J"
    assert failed.metrics == {"ok": 0.0} and not failed.curves
    assert arm.metrics["accuracy"] == 0.5 and arm.metrics["grid_nll"] == pytest.approx(6.0)
    assert arm.curves["curve_accuracy"][-1] == (64, 0.5) and len(arm.curves["train_loss"]) == 64
    assert solve.metrics == {"tasks": 2, "answered": 2, "right": 1, "train_s": 6, "answer_s": 3, "failed": 0}
    assert solve.curves["task_s"] == ((1, 4.0), (2, 5.0))


def test_what_is_no_number_is_left_out():
    (run,) = tracked.runs([row(losses=(2.0, math.nan, math.inf, 1.0))], [])
    assert run.curves["loss"] == ((1, 2.0), (4, 1.0))


def test_a_cell_that_is_measured_again_is_another_run():
    first, again = row(key="k", started=STARTED), row(key="k", started="2026-01-02T00:00:00+00:00")
    ids = [run.id for made in (first, again, again) for run in tracked.runs([made], [])]
    assert ids[0] != ids[1] == ids[2]


# ---- Libraries

tensorboard = pytest.mark.skipif(not find_spec("tensorboard"), reason="tensorboard is not installed")


def read_tensorboard(store):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = {}
    for folder in (path for path in store.iterdir() if path.is_dir()):
        events = EventAccumulator(str(folder)).Reload()
        runs[folder.name] = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return runs


@tensorboard
def test_tensorboard_reads_what_was_written_and_each_run_is_written_once(content, no_network):
    assert trackers.write("tensorboard", content)[0] == 4
    assert trackers.write("tensorboard", content)[0] == 0
    made = {run.id: run for run in tracked.runs(content.rows, content.results, content.solved)}
    read = read_tensorboard(content.folder / "tensorboard")
    assert set(read) == set(made)
    for name, run in made.items():
        expected = {**{metric: [(0, value)] for metric, value in run.metrics.items()}, **dict(run.curves)}
        assert set(read[name]) == set(expected)
        for tag, points in expected.items():
            assert read[name][tag] == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


@tensorboard
def test_parameters_are_tensorboards_hyperparameters(content):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    trackers.write("tensorboard", content)
    arm = tracked.runs([], content.results)[0]
    events = EventAccumulator(str(content.folder / "tensorboard" / arm.id)).Reload()
    kept = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    params = plugin_data_pb2.HParamsPluginData.FromString(kept).session_start_info.hparams
    assert {name: value.string_value for name, value in params.items()} == {**arm.params, "name": arm.name}


@tensorboard
def test_report_and_a_killed_write_go_on_where_they_were(tmp_path, capsys, monkeypatch):
    """The second of three runs fails: what was written before it is not written again."""
    cells, arms = rows()
    for kind, made in ((None, cells), (ROWS, arms)):
        store = Store(tmp_path / "r", **({"kind": kind} if kind else {}))
        for each in made:
            store.add(each)
    tracker, stopped = TRACKERS["tensorboard"], [True]

    def write(store, runs, done):
        def after(run):
            done(run)
            if stopped.pop() if stopped else False:
                raise OSError(28, "No space left on device")

        tracker.write(store, runs, after)

    monkeypatch.setitem(TRACKERS, "tensorboard", Tracker("tensorboard", "tensorboard", write, "show {}"))
    ends = []
    for _ in range(3):
        with pytest.raises(SystemExit) as end:
            app.main(["report", "--results", str(tmp_path / "r"), "--track", "tensorboard"])
        ends.append((end.value.code or 0, capsys.readouterr()))
    assert [code for code, _ in ends] == [2, 0, 0]
    assert "cannot be written (No space left on device)" in ends[0][1].err
    assert "tensorboard: 2 new runs in" in ends[1][1].out and "0 new runs" in ends[2][1].out
    assert len(read_tensorboard(tmp_path / "r" / "tensorboard")) == 3


def test_mlflow_reads_what_was_written(content, no_network):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    assert trackers.write("mlflow", content)[0] == 4 and trackers.write("mlflow", content)[0] == 0
    store = content.folder / "mlflow"
    uri = f"sqlite:///{store}/mlflow.db" if (store / "mlflow.db").exists() else store.as_uri()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    read = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(read) == 4
    assert read["tiny fp32 1024"].data.metrics["step_s"] == 16.0
    arm = read["tiny fp32 n-1"]
    assert arm.data.params["set"] == "made"
    assert len(client.get_metric_history(arm.info.run_id, "train_loss")) == 64


def test_trackio_reads_what_was_written(content, no_network):
    if not find_spec("trackio"):  # its folder is fixed when it is imported
        pytest.skip("trackio is not installed")
    import sqlite3

    assert trackers.write("trackio", content)[0] == 4 and trackers.write("trackio", content)[0] == 0
    with sqlite3.connect(content.folder / "trackio" / f"{trackers.PROJECT}.db") as connection:
        logged = connection.execute("select run_name, step, metrics from metrics").fetchall()
    assert len({name for name, _, _ in logged}) == 4
    (first,) = (json.loads(text) for name, step, text in logged if name.startswith("tiny fp32 1024") and step == 0)
    assert first["step_s"] == 16.0


def test_wandb_leaves_offline_runs(content, no_network):
    pytest.importorskip("wandb", reason="wandb is not installed")
    assert trackers.write("wandb", content)[0] == 4 and trackers.write("wandb", content)[0] == 0
    assert len(list((content.folder / "wandb").glob("wandb/offline-run-*/*.wandb"))) == 4


# ---- What is missing or fails


@pytest.mark.parametrize("verb", ["bench", "ttft", "solve --tasks nowhere", "report"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("mlfow", "unknown tracker 'mlfow'; did you mean mlflow"), ("gone", "pip install gone-package"),
     ("namespace", "pip install namespace-package")],
)  # fmt: skip
def test_a_tracker_that_is_not_there_ends_before_anything_is_done(tmp_path, monkeypatch, capsys, verb, name, message):
    """A folder in which a tracker of that name keeps its files is no library either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "namespace_tracker").mkdir()
    for gone in ("gone", "namespace"):
        monkeypatch.setitem(TRACKERS, gone, Tracker(f"{gone}_tracker", f"{gone}-package", TRACKERS["mlflow"].write, ""))
    with pytest.raises(SystemExit) as end:
        app.main([*verb.split(), "--track", name])
    shown = capsys.readouterr()
    assert end.value.code == 2 and message in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["namespace_tracker"]


def test_a_library_that_fails_costs_a_finished_run_one_line(tmp_path, monkeypatch, capsys):
    def write(store, runs, done):
        print("noise")
        raise RuntimeError("no such thing\nsecond line")

    monkeypatch.setitem(TRACKERS, "odd", Tracker("json", "odd", write, "show {}"))
    Store(tmp_path).add(row())
    trackers.show_after(["odd"], tmp_path, PlainConsole())
    shown = capsys.readouterr()
    assert shown.err.startswith("not tracked: odd: RuntimeError: no such thing; try another version of odd")
    assert shown.err.count("\n") == 1 and shown.out == ""
    with pytest.raises(UserError):
        trackers.show(["odd"], tmp_path, PlainConsole())


def test_the_environment_is_as_before(content, monkeypatch):
    seen = {}

    def write(store, runs, done):
        import os

        seen.update(os.environ)

    monkeypatch.setitem(TRACKERS, "odd", Tracker("json", "odd", write, "show {}"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    trackers.write("odd", content)
    import os

    assert seen["WANDB_MODE"] == "offline" and "TRACKIO_SPACE_ID" not in seen
    assert Path(seen["TRACKIO_DIR"]) == content.folder / "odd"
    assert os.environ["TRACKIO_SPACE_ID"] == "someone/space" and "WANDB_MODE" not in os.environ
