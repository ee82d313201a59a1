"""The real thing on a model of two layers: survey, workers, record, reports, and a kill in the middle."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.profile.store import read

ROOT = Path(__file__).parents[1]


def _bench(folder, tiny, *words, **how):
    command = [sys.executable, "-m", "harness", "bench", str(tiny), "--device", "cpu", "--results", str(folder), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "80", "TMPDIR": str(folder)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **how
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_folder):
    """One sweep of fp32 and int4 at two contexts, one of them beyond the window."""
    folder = tmp_path_factory.mktemp("swept")
    process = _bench(folder, tiny_folder, "--precisions", "fp32 int4", "--contexts", "64 512", "--sample-seconds", "3")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return folder, out


def test_the_sweep_answers_every_cell(swept):
    folder, out = swept
    rows, bad = read(folder / "records.jsonl")
    assert bad == 0
    found = {(r.cell.precision, r.cell.context): r for r in rows}
    assert {key: r.status for key, r in found.items()} == {
        ("fp32", 64): "ok",
        ("fp32", 512): "beyond_window",
        ("int4", 64): "ok",
        ("int4", 512): "beyond_window",
    }
    measured = found["fp32", 64]
    assert measured.params == 94_528
    assert measured.load_s > 0
    assert len(measured.micro_s) >= 3
    assert measured.memory.keys() == {"after_load", "first_step", "steady"}
    assert measured.versions["torch"]
    assert measured.work.total(64) > 4 * 64 * 73_000  # four FLOPs a token and parameter of the layers
    assert str(measured.cell.weights).endswith("tiny")
    assert "Best candidate: tiny" in out


def test_it_prints_plain_lines_of_80_columns(swept):
    _, out = swept
    assert "\x1b" not in out
    tables = out[out.index("model ") :]
    assert max(map(len, tables.splitlines())) <= 80


def test_it_leaves_the_csv_and_the_benchmark_file(swept):
    folder, _ = swept
    with (folder / "summary.csv").open() as file:
        assert [r["status"] for r in csv.DictReader(file)] == ["ok", "beyond_window"] * 2
    assert '"micro_step[tiny-int4-64]"' in (folder / "benchmark.json").read_text()


def test_a_finished_sweep_measures_nothing_again(swept, tiny_folder):
    folder, _ = swept
    before = (folder / "records.jsonl").read_bytes()
    process = _bench(folder, tiny_folder, "--precisions", "fp32 int4", "--contexts", "64 512")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (folder / "records.jsonl").read_bytes() == before
    assert out.count("(from the record)") == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_a_cell_it_goes_on_and_leaves_nothing_running(tmp_path, tiny_folder, how):
    words = ("--precisions", "fp32", "--contexts", "32 64", "--sample-seconds", "4")
    first = _bench(tmp_path, tiny_folder, *words, start_new_session=True)
    for line in first.stdout:
        if line.startswith("2/2"):
            break
    time.sleep(1.0)
    worker = _children(first.pid)
    assert worker
    first.send_signal(how)
    _, err = first.communicate(timeout=30)
    assert first.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), err
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


def _children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _alive(pid):
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
