"""The real thing on a model of two layers: survey, workers, record, reports, and a kill in the middle."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from helpers.records import TINY
from helpers.tasks import made_tasks, write_tasks

from harness.catalog.weights import without_digest
from harness.cli import app
from harness.records.arm import ROWS
from harness.records.store import NOTHING, read


def _bench(folder, tiny, *words, **options):
    return _harness(folder, "bench", str(tiny), "--force", *words, **options)


def _harness(folder, *words, **options):
    command = [sys.executable, "-m", "harness", *words, "--device", "cpu", "--results", str(folder)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "TMPDIR": str(folder)}
    # A background job of a shell ignores SIGINT, and so would what it starts.
    options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder.parent,
        **options,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_folder):
    """One sweep of fp32 and int4 at two contexts, one of them beyond the window."""
    folder = tmp_path_factory.mktemp("swept")
    words = ("--precisions", "fp32 int4", "--contexts", "64 512", "--sample-seconds", "1", "--no-accuracy")
    process = _bench(folder, tiny_folder, *words)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return folder, out


def test_the_sweep_answers_every_cell(swept):
    folder, out = swept
    rows, bad = read(folder / "records.jsonl")
    assert bad == NOTHING
    by_cell = {(r.cell.precision, r.cell.context): r for r in rows}
    assert {key: r.status for key, r in by_cell.items()} == {
        ("fp32", 64): "ok",
        ("fp32", 512): "beyond_window",
        ("int4", 64): "ok",
        ("int4", 512): "beyond_window",
    }
    measured = by_cell["fp32", 64]
    assert measured.params == 94_528
    assert measured.load_s > 0
    assert len(measured.micro_s) >= 3
    assert measured.memory.keys() == {"imported", "after_load", "first_step", "steady"}
    assert measured.versions["torch"]
    assert measured.work.total(64) > 4 * 64 * 73_000  # four FLOPs a token and parameter of the layers
    assert str(measured.cell.weights).endswith("tiny")
    assert "Best candidate: tiny" in out


def test_it_prints_plain_lines_of_80_columns(swept):
    _, out = swept
    assert "\x1b" not in out
    assert max(map(len, _tables(out))) <= 80


def _tables(out):
    """The lines of the tables that were printed last: after where the files are, before a fine-tune goes on."""
    _, *lines = out[out.rindex("Record, ") :].partition("looking at the device")[0].splitlines()
    assert any("verdict" in line for line in lines)
    return lines


def test_it_leaves_the_csv_and_the_benchmark_file(swept):
    folder, _ = swept
    with (folder / "summary.csv").open() as file:
        assert [r["status"] for r in csv.DictReader(file)] == ["ok", "beyond_window"] * 2
    assert '"micro_step[tiny-int4-64]"' in (folder / "benchmark.json").read_text()
    assert 'id="memory-1"' in (folder / "report.html").read_text()


def test_a_finished_sweep_measures_nothing_again(swept, tiny_folder):
    folder, _ = swept
    before = (folder / "records.jsonl").read_bytes()
    # With an accuracy it would go on to measure the cell of its fine-tune.
    words = ("--precisions", "fp32 int4", "--contexts", "64 512", "--no-accuracy")
    out, err = (process := _bench(folder, tiny_folder, *words)).communicate(timeout=120)
    assert process.returncode == 0, err
    assert (folder / "records.jsonl").read_bytes() == before
    assert out.count("(from the record)") == 2


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_a_cell_it_goes_on_and_leaves_nothing_running(tmp_path, tiny_folder, stop):
    words = ("--precisions", "fp32", "--contexts", "32 64", "--sample-seconds", "2", "--no-accuracy")
    first = _bench(tmp_path, tiny_folder, *words, start_new_session=True)
    for line in first.stdout:
        if line.startswith("2/2"):
            break
    time.sleep(1.0)
    worker = _children(first.pid)
    assert worker
    first.send_signal(stop)
    _, err = first.communicate(timeout=30)
    assert first.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 130), err
    deadline = time.monotonic() + 20
    while any(map(_alive, worker)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(_alive, worker))
    (kept,) = read(tmp_path / "records.jsonl")[0]
    second = _bench(tmp_path, tiny_folder, *words)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    rows = read(tmp_path / "records.jsonl")[0]
    assert rows[0] == kept
    assert [r.cell.context for r in rows] == [32, 64]
    assert out.count("(from the record)") == 1


# --- with accuracy: a model with weights, and one without


CATALOGUE = """\
defaults: {{model: bare, precisions: [fp32], contexts: {{cuda: [64], cpu: [64]}}, budget_hours: 12, steps: 30,
  test_tasks: 10, sample_seconds: {{cuda: 3, cpu: 3}}, cap_seconds: {{cuda: 300, cpu: 300}}}}
recipe: {{lora_r: 4, lora_alpha: 8, lora_dropout: 0.0, lora_targets: attention, sequences_per_step: 2, micro_batch: 1,
  learning_rate: 1.0e-3, optimizer: adamw, gradient_checkpointing: false, answer_share: 0.12}}
ttft: {{set: {tasks}, grid_limit: 30, tasks: 3, steps: 8, context: 256, views: 2}}
models:
  bare: {{window: 256, architecture: {architecture}}}
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory, arc_folder):
    """One bench of a model with weights, and of one that only models.yaml knows; its folder, words and output."""
    folder = tmp_path_factory.mktemp("compared")
    tasks = write_tasks(folder / "tasks", *made_tasks(4))
    architecture = {name: value for name, value in TINY.items() if name != "max_position_embeddings"}
    (folder / "models.yaml").write_text(CATALOGUE.format(tasks=tasks, architecture=json.dumps(architecture)))
    words = (str(arc_folder), "bare", "--models-file", str(folder / "models.yaml"))
    process = _harness(folder / "results", "bench", "--force", *words)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return folder / "results", words, out


def test_a_bench_measures_the_accuracy_of_what_has_weights(compared, arc_folder):
    folder, _, out = compared
    text = " ".join(out.split())
    assert "bare: no weights: accuracy not measured; give them with --weights PATH" in text
    assert "+ color swap: measured" in text and "Best arm: " in text
    assert "Pick: small fp32 at 256 tokens: the only one with a projected accuracy" in text
    assert "bare: no weights: accuracy not measured; harness ttft bare" in text
    assert max(map(len, _tables(out))) <= 80 and "\x1b" not in out
    results, bad = read(folder / ROWS.name, ROWS)
    assert bad == NOTHING
    assert [(r.arm, r.steps, len(r.scores), without_digest(r.spec.weights)) for r in results] == [
        ("baseline", 0, 3, str(arc_folder)),
        ("+ color swap", 8, 3, str(arc_folder)),
    ]
    with (folder / "summary.csv").open() as file:
        listed = list(csv.DictReader(file))
    # The fine-tune is at 256 tokens, so a cell was measured there too, and has the accuracy alone.
    assert [(r["model"], r["context"], bool(r["accuracy"])) for r in listed] == [
        ("small", "64", False),
        ("bare", "64", False),
        ("small", "256", True),
    ]
    rows = {r["model"]: r for r in listed}
    # Seconds of answers that other programs made too long are not taken.
    taken = "predicted" if results[1].slowed else "measured"
    assert rows["small"]["run_scope"] == "shared" and rows["small"]["answer_evidence"] == taken
    assert rows["bare"]["answer_evidence"] == "predicted"
    assert float(rows["small"]["accuracy"]) == pytest.approx(results[1].mean("attempts"), abs=1e-6)
    assert rows["small"]["accuracy_steps"] == "8" and rows["small"]["projected_steps"] == "30"
    assert {v for name, v in rows["bare"].items() if "accuracy" in name} == {""}
    assert rows["bare"]["weights"] == "random"


def test_without_accuracy_nothing_is_tuned_and_the_record_keeps_what_it_had(compared):
    folder, words, _ = compared
    before = (folder / ROWS.name).read_bytes()
    (folder / "summary.csv").unlink()
    process = _harness(folder, "bench", "--force", *words, "--no-accuracy")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "no weights: accuracy not measured" not in out and "color swap" not in out
    assert "Best candidate: " in out and "Pick: " not in out
    assert (folder / ROWS.name).read_bytes() == before
    assert ",'+ color swap," in (folder / "summary.csv").read_text()


@pytest.mark.parametrize(("budget", "code"), [("12", 0), ("1e-9", 1)])
def test_pick_and_report_read_what_the_bench_left(compared, capsys, budget, code):
    folder, words, _ = compared
    for verb in ("report", "pick"):
        with pytest.raises(SystemExit) as end:
            app.main([verb, "--results", str(folder), "--budget-hours", budget, *words[2:]])
        text = " ".join(capsys.readouterr().out.split())
        assert (end.value.code or 0) == (code if verb == "pick" else 0)
        assert ("Pick: small fp32" if not code else "Pick: none fits 1e-09 h.") in text


def test_a_fine_tune_that_is_killed_goes_on_to_the_same_row(tmp_path, arc_folder):
    """SIGKILL once a checkpoint is on the disk; the same command again then ends as one that nothing disturbed."""
    tasks = write_tasks(tmp_path / "tasks", *made_tasks(3))
    words = ("ttft", str(arc_folder), "--set", str(tasks), "--arms", "+ color swap", "--precision", "fp32")
    words += ("--steps", "200", "--context", "256", "--learning-rate", "1e-3", "--project-to", "400")
    whole = _harness(tmp_path / "whole", *words)
    _, err = whole.communicate(timeout=200)
    assert whole.returncode == 0, err
    folder = tmp_path / "killed"
    first = _harness(folder, *words)
    while not list(folder.glob("checkpoints/*.pt")) and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert first.returncode == -signal.SIGKILL
    assert read(folder / ROWS.name, ROWS) == ([], NOTHING)
    second = _harness(folder, *words)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "going on from a checkpoint" in out
    assert list(folder.glob("checkpoints/*.pt")) == []
    (resumed,), (undisturbed,) = (read(path / ROWS.name, ROWS)[0] for path in (folder, tmp_path / "whole"))
    assert len(resumed.step_losses) == 200 and resumed.step_losses == undisturbed.step_losses
    assert resumed.scores == undisturbed.scores
    timeless = {"started": "", "train_s": 0.0, "decode_s": 0.0, "cores_taken": None}
    assert replace(resumed, **timeless) == replace(undisturbed, **timeless)


def _children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _alive(pid):
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
