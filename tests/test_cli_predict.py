"""What is asked of `harness predict`, good and bad, and the edge of a card's memory."""

import csv
import io
from dataclasses import replace

import pytest
from helpers.predictions import OWN_ACCELERATOR
from rich.console import Console

from bench import backtest
from harness.cli.app import main
from harness.cli.predict import configure
from harness.digits import number
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import prediction, query
from harness.predict.trace_pool import TracePool
from harness.records.cell import Goal
from harness.report import predictions


@pytest.fixture(scope="module")
def tracers():
    """One pool for all questions that are asked without the command line: its processes import torch once."""
    with TracePool(versions()) as pool:
        yield pool


def request(models="arc-tiny", precisions="fp16", contexts="256", gpus="t4", **more):
    return configure(models, precisions=precisions, contexts=contexts, gpu=gpus, **more)


def test_predict_from_the_command_line(tmp_path, capsys):
    main_ = ["predict", "--model", "arc-tiny", "--precision", "fp16 int4", "--context", "128 256", "--gpu", "t4 l4"]
    with pytest.raises(SystemExit) as ended:
        main([*main_, "--csv", str(tmp_path / "p.csv")])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "PREDICTED, not measured" in shown and max(map(len, shown.splitlines())) <= 80
    with (tmp_path / "p.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 8 and {row["origin"] for row in rows} == {"predicted"}
    assert {row["card"] for row in rows} == {"t4", "l4"}
    assert all(float(row["hours_low"]) < float(row["hours_mid"]) < float(row["hours_high"]) for row in rows)


def test_ten_steps_in_the_table_are_of_full_contexts_as_in_benchs(tracers):
    (cell,) = query.predict_all(request(contexts="1024"), tracers)
    out = io.StringIO()
    predictions.predictions_table([cell], Goal(12, 1000, 400), Console(file=out, width=80, highlight=False))
    line, *_ = [line.split() for line in out.getvalue().splitlines() if line.startswith("arc-tiny")]
    assert line[4] == number(cell.step_s / 6) != number(cell.arc_step_s / 6)
    (row,) = predictions.flat([cell], Goal(12, 1000, 400))
    assert (row["ten_steps_min"], row["arc_ten_steps_min"]) == (cell.step_s / 6, cell.arc_step_s / 6)
    assert "1000 steps over ARC's lengths up to seq_len" in " ".join(out.getvalue().split())


@pytest.mark.parametrize(("precision", "bound"), [("int8", True), ("int4", False)])
def test_int8_on_a_card_is_predicted_as_a_lower_bound(tracers, precision, bound):
    cells = query.predict_all(request(precisions=precision, contexts="64"), tracers)
    out = io.StringIO()
    predictions.predictions_table(cells, Goal(12, 1000, 400), Console(file=out, width=80, highlight=False))
    assert ("int8: seconds are a lower bound" in " ".join(out.getvalue().split())) == bound


def test_a_single_cell_shows_what_fills_the_memory(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "arc-tiny", "--precision", "int4", "--context", "256"])
    shown = capsys.readouterr().out
    assert "quantisation constants" in shown and "context and allocator" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "t5"], "unknown accelerator 't5'"),
        (["--context", "4096"], "beyond arc-tiny's window of 2048"),
        (["--method", "lori"], "unknown method 'lori'; did you mean lora"),
        (["--checkpointing", "mlps"], "unknown checkpointing 'mlps'; did you mean mlp"),
        (["--recipe", "arc25"], "unknown recipe 'arc25'; did you mean arc24"),
        (["--split", "rows"], "unknown split"),
        (["--gpu", "0xt4"], "the number of cards must be a whole number from 1 to"),
        (["--gpu", ""], "names no accelerator"),
        (["--max-context", "--max-batch"], "ask for them one by one"),
        (["--gpu", "t4 2xl4"], "different numbers of cards"),
        (["--micro-batch", "5"], "cannot be shared equally"),
        (["--gpu", "nowhere.yaml"], "cannot be read"),
        (["--precision", "fp16", "--gpu", "3xt4"], "cannot be shared equally"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "arc-tiny", *words])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_the_largest_context_and_batch_are_at_the_edge(tracers):
    """A card that holds 70 MiB besides its context: the found context fits for sure, and the next one does not."""
    question = request("arc-tiny", "fp16", "256")
    card, calibration = question.accelerators[0]
    small = replace(card, memory_bytes=card.context_bytes + (70 << 20))
    question = replace(question, accelerators=[(small, calibration)])
    (longest,) = query.find_largest(question, tracers)
    assert longest.fits_memory() is True and longest.context % 64 == 0
    (beyond,) = query.predict_all(replace(question, contexts=[longest.context + 64]), tracers)
    assert beyond.fits_memory() is not True
    (widest,) = query.find_largest(question, tracers, batch=True)
    assert widest.fits_memory() is True and 16 % widest.recipe.micro_batch == 0
    nothing = replace(small, memory_bytes=1 << 20)
    (none,) = query.find_largest(replace(question, accelerators=[(nothing, calibration)]), tracers)
    assert "not even 64 fit" in none.reason


def test_a_kept_trace_is_used_and_a_torn_one_made_again(monkeypatch, tmp_path, tracers):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    question = request(contexts="64", micro_batch=1)
    (first,) = query.predict_all(question, tracers)
    assert len(list((tmp_path / "traces").iterdir())) == 3
    with TracePool(versions()) as idle:
        assert query.predict_all(question, idle) == [first] and not idle.executors
    key = prediction.trace_key(first.spec, first.precision, first.recipe, first.accelerator, 64)
    torn = tmp_path / "traces" / f"{key.key(versions())}.json"
    whole = torn.read_text()
    torn.write_text(whole[:100])
    assert query.predict_all(question, tracers) == [first] and torn.read_text() == whole


def test_a_card_is_predicted_with_the_micro_batch_that_bench_would_measure(tracers):
    """The default, half of it where it may not fit, and one sequence where nothing does."""
    (cell,) = query.predict_all(request(), tracers)
    assert cell.recipe.micro_batch == 16
    (cell,) = query.predict_all(request(micro_batch=2), tracers)
    assert cell.recipe.micro_batch == 2
    (cell,) = query.predict_all(request(recipe="reference"), tracers)
    assert cell.recipe.micro_batch == 1
    question = request()
    card, calibration = question.accelerators[0]

    def on(free_mib):
        small = replace(card, memory_bytes=card.context_bytes + (free_mib << 20))
        return query.predict_all(replace(question, accelerators=[(small, calibration)]), tracers)[0]

    assert 1 < on(150).recipe.micro_batch < 16 and on(150).fits_memory()
    assert on(1).recipe.micro_batch == 1 and not on(1).fits_memory()


def test_what_cannot_be_traced_is_said(tracers):
    """Full fine-tuning of packed weights."""
    (cell,) = query.predict_all(request(precisions="int4", method="full"), tracers)
    assert "not quantised" in cell.reason


def test_calibrate_from_the_command_line(tmp_path, capsys):
    """A record of two rows that the conftest's cells make; without rows it is one line."""
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--results", str(tmp_path)])
    assert ended.value.code == 2 and "run `harness bench` first" in capsys.readouterr().err


def test_plan_predicts_its_cells_for_a_card_that_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing was measured
    with pytest.raises(SystemExit):
        main(["plan", "arc-tiny", "--contexts", "128 256"])
    assert "With --gpu" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plan", "arc-tiny", "--contexts", "128 256", "--gpu", "t4"])
    assert "PREDICTED, not measured" in capsys.readouterr().out


def test_plan_predicts_its_cells_for_the_device_that_was_measured_last(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "some-cpu"
    folder.mkdir(parents=True)
    committed = (backtest.REFERENCE / "amd-epyc-zen5-2-threads" / "records.jsonl").read_text()
    (folder / "records.jsonl").write_text(committed)
    with pytest.raises(SystemExit):
        main(["plan", "arc-tiny", "--contexts", "128 256", "--precisions", "bf16 fp32"])
    shown = capsys.readouterr().out
    assert "PREDICTED, not measured" in shown and "fitted on another CPU" in shown
    with pytest.raises(SystemExit) as ended:
        main(["plan", "arc-tiny", "--contexts", "128", "--precisions", "fp16"])
    assert ended.value.code == 0 and "Not predicted by the last record" in capsys.readouterr().out


def test_a_dtype_that_a_card_lacks(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN_ACCELERATOR.replace("bf16: emulated\n", ""))
    with pytest.raises(UserError, match="mine does not compute bf16; it has fp16, fp32"):
        query.predict_all(request(precisions="bf16", gpus=str(path)), None)
