"""What users see of the reference records, to the byte: 80 columns, no colours.

A change that is meant rewrites the files: GOLDEN=write python -m pytest tests/test_golden.py, and the diff is read.
"""

import os
import re
from pathlib import Path

import pytest
from helpers.records import curve, result, row

from harness.cli import app
from harness.records.arm import ROWS
from harness.records.store import Store

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
SWEEP, BENCH = "results/reference/amd-epyc-zen5-2-threads", "results/reference/make-bench-qwen-0.5b"
VERBS = {
    "report": ["report", "--results", SWEEP],
    "report-bench": ["report", "--results", BENCH, "--budget-hours", "9", "--steps", "500"],
    "report-accuracy": ["report", "--results", "made"],
    "pick": ["pick", "--results", SWEEP],
    "pick-accuracy": ["pick", "--results", "made"],
    "predict": ["predict", "smollm2-135m", "--precision", "fp16 int4", "--context", "512 1024", "--gpu", "t4"],
    "plan": ["plan", "qwen-0.5b", "phi-2", "--contexts", "1024 4096", "--device", "cpu"],
    "models": ["models"],
    "coverage": ["coverage"],
}


@pytest.fixture
def records(monkeypatch, tmp_path):
    """A folder with the project's models.yaml and reference records, and a record with accuracies, made here."""
    (tmp_path / "models.yaml").symlink_to(ROOT / "models.yaml")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    Store(tmp_path / "made").add(row(key="k"))
    store = Store(tmp_path / "made", kind=ROWS)
    for arm, right, steps in (("baseline", 2, 0), ("n-1", 4, 64), ("+ geometric", 6, 64)):
        store.add(result(right, arm=arm, steps=steps, decode_s=20.0, curve_points=curve(10, 2, 3, 5, right)[:steps]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))  # how many are traced is printed
    monkeypatch.setattr("harness.report.progress._PRINT_EVERY_S", float("inf"))  # on a busy machine it takes longer
    return tmp_path


@pytest.mark.parametrize("name", VERBS)
def test_output_is_as_before(name, records, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(VERBS[name])
    assert not end.value.code
    # A slow machine says how far it is now and then.
    _same(GOLDEN / f"{name}.txt", re.sub(r"^\w+ \d+ of \d+, about .* left\n", "", capsys.readouterr().out, flags=re.M))


@pytest.mark.parametrize(("name", "folder"), [("summary.csv", SWEEP), ("summary-accuracy.csv", "made")])
def test_the_csv_is_as_before(name, folder, records, capsys):
    with pytest.raises(SystemExit):
        app.main(["report", "--results", folder, "--csv", "out.csv"])
    _same(GOLDEN / name, (records / "out.csv").read_text(encoding="utf-8"))


def _same(path, text):
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
