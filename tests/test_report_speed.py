import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.predictions import predicted
from helpers.records import cell, row
from rich.console import Console

from harness.errors import UserError
from harness.records.cell import MLP, Goal, ModelSpec, Recipe
from harness.records.measurement import CROWDED, CardState, MatmulSpeed, from_json, to_json
from harness.report import export, format, formats, frame, predictions, style, terminal

GOAL = Goal(12, 1000, 400)
ROWS = [
    row((1.0, 1.01, 0.99) * 8, cell=cell(model=ModelSpec("tinyllama-1.1b", {}, 2048)), params=1_100_000_000),
    row((1.2, 1.1, 1.15) * 8, cell=cell(model=ModelSpec("tinyllama-1.1b", {}, 2048), context=2048)),
    row((20.0,) * 3, cell=cell(model=ModelSpec("qwen2.5-0.5b", {}, 131072), precision="int4")),
    row(status="oom", reason="CUDA out of memory", cell=cell(model=ModelSpec("phi-3-mini", {}, 131072), context=8192)),
    row(
        status="too_slow",
        reason="not started: about 245 s a micro-step; fp16 is emulated here: use fp32",
        rate=MatmulSpeed(1e10, 1e9, False),
        cell=cell(precision="fp16", compute_dtype="fp16"),
    ),
]


def _read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _print(rows, **options):
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False, **options)
    terminal.show(rows, [], GOAL, console)
    return out.getvalue()


def test_the_summary_fits_80_columns_and_ends_with_the_pick():
    text = _print(ROWS)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "\x1b" not in text
    paragraph = text.strip().split("\n\n")[-1]
    assert paragraph.startswith("Best candidate: tinyllama-1.1b fp32 at 2048 tokens")
    flat = " ".join(text.split())
    for words in ("par.", "tinyllama-1.1b", "too big", "too slow", "A step is 16 sequences", "Random weights"):
        assert words in flat
    assert "fp16 is emulated on this device" in flat


@pytest.mark.parametrize(
    ("precision", "device", "weights", "bound"),
    [("int8", "cuda:0", "random", True), ("int8", "cuda:0", "w", False), ("int8", "cpu", "random", False),
     ("int4", "cuda:0", "random", False)],
)  # fmt: skip
def test_int8_of_random_weights_on_a_card_is_a_lower_bound(precision, device, weights, bound):
    on = cell(precision=precision, compute_dtype="fp16", device=device, weights=weights)
    assert ("its seconds are a lower bound" in " ".join(_print([row(cell=on)]).split())) == bound


@pytest.mark.parametrize(
    ("label", "lines"),
    [("int4", "int4"), ("bf16/ckpt", "bf16/ckpt"), ("bf16/b8/ckpt-mlp*", "bf16/b8\n/ckpt-mlp*"),
     ("fp16/sdpa/compiled", "fp16/sdpa\n/compiled"), ("bf16/ref/dora", "bf16/ref\n/dora")],
)  # fmt: skip
def test_a_rare_steps_marks_are_folded(label, lines):
    assert style.folded(label) == lines


def test_a_rare_step_leaves_the_model_its_name():
    rare = Recipe(micro_batch=8, gradient_checkpointing=MLP, kernels="attention=sdpa pointwise=compiled")
    text = _print([row(cell=cell(model=ModelSpec("qwen2.5-0.5b", {}, 2048), recipe=rare))])
    assert [line[:13] for line in text.splitlines() if line.startswith("qwen")] == ["qwen2.5-0.5b "] * 2  # two tables
    assert max(map(len, text.splitlines())) <= 80


def test_which_modules_are_adapted_is_said():
    text = " ".join(_print([row(adapted="q_proj v_proj"), row(key="other")]).split())
    assert "- Adapted: q_proj v_proj. -" in text
    other = cell(model=ModelSpec("other", {}, 4096), recipe=Recipe(lora_targets="o_proj dense k_proj"))
    notes = ("of attention o_proj alone is adapted here", "the text part alone is trained")
    text = " ".join(_print([row(adapted="q_proj"), row(cell=other, adapted="o_proj", notes=notes)]).split())
    assert "- Adapted: q_proj (tiny). - Adapted: o_proj (other). - other: of attention" in text
    assert "- other: the text part alone is trained" in text
    assert "/o_proj+2" in text and "the first of --lora-targets" in text
    linear = _print([row(cell=cell(recipe=Recipe(lora_targets="all-linear")))])
    assert "/linear" in linear and "every linear layer adapted" in linear


def test_a_row_without_adapted_modules_is_read_as_before():
    raw = to_json(row())
    del raw["adapted"], raw["notes"]
    assert from_json(raw) == row()


def test_markup_in_a_name_is_printed_not_obeyed():
    text = _print([row(cell=cell(model=ModelSpec("[red]x", {}, 64)), status="crashed", reason="[bold]no[/nothing]")])
    assert "[red]x" in text
    assert "[bold]no[/nothing]" in text


def test_an_empty_record():
    assert "empty" in _print([])


def test_the_schema_of_the_csv_is_stable(tmp_path):
    """Columns may be added at the end only, because others build on them."""
    path = tmp_path / "summary.csv"
    export.write_csv(ROWS, [], GOAL, path)
    rows = _read(path)
    assert list(rows[0]) == list(frame.COLUMNS)
    assert frame.COLUMNS[:4] == ("model", "hub_id", "params_m", "max_context")
    assert len(rows) == 5
    assert rows[3]["status"] == "oom"
    assert rows[3]["hours_mid"] == ""
    assert float(rows[0]["steps_per_minute"]) == pytest.approx(60 / 16, rel=1e-3)
    assert float(rows[0]["peak_gib"]) == 1.0
    assert float(rows[0]["margin_gib"]) == 7.0


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "a\nb,c"])
def test_no_cell_of_the_csv_is_a_formula(tmp_path, name):
    path = tmp_path / "summary.csv"
    export.write_csv([row(cell=cell(model=ModelSpec(name, {}, 64, hub_id=name)))], [], GOAL, path)
    (line,) = _read(path)
    assert line["model"][0] not in "=+-@"
    assert "\n" not in line["model"]


def test_pytest_benchmark_compares_two_sweeps(tmp_path):
    slower = [replace(r, micro_s=tuple(2 * s for s in r.micro_s)) for r in ROWS]
    for name, rows in (("a", ROWS), ("b", slower)):
        export.write_benchmark(rows, [], GOAL, tmp_path / f"{name}.json")
    compared = subprocess.run(
        [
            str(Path(sys.executable).with_name("pytest-benchmark")),
            "compare",
            str(tmp_path / "a.json"),
            str(tmp_path / "b.json"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("tinyllama-1.1b-fp32-1024") == 2
    assert "(2.0" in compared.stdout


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_writes_one_file_of_its_name(tmp_path, name):
    path = formats.write(name, ROWS, [], GOAL, tmp_path)
    assert [p for p in tmp_path.iterdir()] == [path] and path.name == formats.FORMATS[name].file_name
    assert ("tinyllama-1.1b" in path.read_text()) == (name != "arms")  # of cells, or of arms: here are none
    with pytest.raises(UserError, match="cannot be written"):
        formats.write(name, ROWS, [], GOAL, tmp_path / "none")


def test_pytest_benchmark_has_a_name_per_cell(tmp_path):
    """Other recipes and other weights are not compared under one."""
    kinds = [{}, {"recipe": Recipe(micro_batch=4)}, {"weights": "files:0f3a99c1@~/model"}]
    rows = [row(cell=cell(**kind), key=str(i)) for i, kind in enumerate(kinds)]
    export.write_benchmark(rows, [], GOAL, tmp_path / "b.json")
    names = [entry["fullname"] for entry in json.loads((tmp_path / "b.json").read_text())["benchmarks"]]
    assert names == [f"harness::micro_step[tiny-fp32{mark}-1024]" for mark in ("/random", "/b4/random", "/0f3a99c1")]
    export.write_benchmark(rows[:1], [], GOAL, tmp_path / "b.json")
    assert "micro_step[tiny-fp32-1024]" in (tmp_path / "b.json").read_text()


def test_a_format_that_no_one_knows(tmp_path):
    with pytest.raises(UserError, match="unknown format 'cvs'; did you mean csv"):
        formats.write("cvs", ROWS, [], GOAL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_predictions_csv_is_exact(tmp_path):
    """As csv.writer has it: integers as such, floats by their shortest exact form, lines that end in CR LF."""
    cells = [predicted(), predicted(context=300, weights=3 << 30)]
    path = tmp_path / "p.csv"
    predictions.FORMATS["csv"].write(cells, GOAL, path)
    expected = io.StringIO()
    writer = csv.DictWriter(expected, predictions.COLUMNS)
    writer.writeheader()
    writer.writerows(predictions.flat(cells, GOAL))
    assert path.read_bytes() == expected.getvalue().encode()
    first, second = _read(path)
    assert float(first["micro_step_s"]) == cells[0].micro_s and first["context"] == "1024"
    assert second["weights_gib"] == "3.0" and second["steps"] == "1000"
    predictions.FORMATS["csv"].write([], GOAL, path)
    assert path.read_text() == ",".join(predictions.COLUMNS) + "\n"


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        export.write_csv(ROWS, [], GOAL, tmp_path / "none" / "summary.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        export.write_benchmark(ROWS, [], GOAL, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("r", ROWS)
def test_rows_survive_json(r):
    assert from_json(json.loads(json.dumps(to_json(r)))) == r


def test_hours_and_durations():
    assert [format.millions(m) for m in (None, 0.0946, 1.31, 493.6)] == ["-", "0.095", "1.3", "494"]
    assert format.hours(5.83, 6.145, 6.46) == "6.1 (5.8-6.5)"
    assert format.hours(119, 126.2, 133) == "126 (119-133)"
    assert [format.duration(s) for s in (59.4, 61, 3660)] == ["59 s", "1 min 01 s", "1 h 01 min"]
    assert format.hours(9.9e8, 1e9, 1.01e9) == "1.00G (990M-1.01G)" and format.thousands(10_485_760) == "10240"


@pytest.mark.parametrize("seconds", [1e9, 1e-9], ids=["aeons", "nothing"])
def test_absurd_seconds_and_bytes_leave_no_digit_and_no_name_out(seconds):
    """A row from elsewhere may hold them: a digit that no column has room for would be another number."""
    most = {"steady": {"resident": 2**60}}
    text = _print([row((seconds,) * 12, memory=most, device_total_bytes=2**60, load_s=1e15 * (seconds > 1))])
    tables = text.partition("Measured on")[0] + text.partition("measured.")[2].partition("of peak:")[0]
    assert max(map(len, text.splitlines())) <= 80 and "tiny" in tables and "fp32" in tables
    assert not re.search(r"[0-9.]e[+-]?[0-9]", text) and not re.search(r"[0-9.]{8}", tables)
    assert ("1.00G 9" if seconds > 1 else "<0.0001 9") in tables and "1.07G" in tables


def test_cells_that_were_timed_beside_others_are_named_once_and_not_warned_about_otherwise():
    noisy = (1.0, 2.0, 1.0, 3.0) * 5
    rows = [row(noisy, cell=cell(context=n), notes=(CROWDED,), key=f"k{n}", others_cpu=1.5) for n in (512, 1024)]
    text = _print(rows)
    assert text.count("timed while others used its cores") == 1
    assert "tiny fp32 512, tiny fp32 1024: timed while others used" in " ".join(text.split())
    assert "vary by" not in text and "known to" not in text


def test_what_a_card_says_of_its_heat_is_no_matter_of_others():
    hot = tuple(CardState(900.0, 85.0, 70.0, ("heat",)) for _ in range(2))
    on_card = row((1.0, 2.0) * 10, cell=cell(device="cuda:0"), notes=(CROWDED,), others_cpu=1.5, card=hot)
    assert "heat holds the card's clock down" in " ".join(_print([on_card]).split())


def test_of_many_notes_those_are_shown_that_ask_for_something():
    """Eight at most, and how many more there are; --notes shows every one."""
    rows = [row(status="crashed", key=f"f{i}", reason=f"reason {i}", cell=cell(context=64 + i)) for i in range(12)]
    rows += [row(key=f"n{i}", kernels=f"attention=k{i}", cell=cell(context=256 + i)) for i in range(5)]
    out = io.StringIO()
    terminal.show(rows, [], GOAL, Console(file=out, width=200, highlight=False), terminal.MOST_NOTES)
    shown = [line for line in out.getvalue().splitlines() if line.startswith("- ")]
    assert [f"reason {i}" in line for i, line in enumerate(shown[:8])] == [True] * 8
    every = _print(rows)
    assert all(f"crashed: reason {i}." in every for i in range(12)) and every.count("Kernels:") == 5
    more = len(re.findall(r"^- ", every, re.M)) - 8
    assert shown[8:] == [f"- {more} more notes: harness report --notes"]
