"""Options of predict: adapter, optimiser, step, whose lengths, contexts beyond the window; columns of the CSV."""

import csv
import json

import pytest

import harness
from harness.arc.lengths import PUBLISHED
from harness.cli.app import main
from harness.cli.predict import configure
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict import query
from harness.predict.trace_pool import TracePool


@pytest.fixture(scope="module")
def tracers():
    with TracePool(versions()) as pool:
        yield pool


def one(tracers, **options):
    options = {"precisions": "fp16", "contexts": "64", "gpu": "t4", "micro_batch": 1} | options
    (cell,) = query.predict_all(configure("arc-tiny", **options), tracers)
    return cell


def test_rank_dtype_and_optimiser_change_what_is_held(tracers):
    plain, wide = one(tracers), one(tracers, lora_r=64)
    assert wide.trace.trainable == 2 * plain.trace.trainable and wide.trace.params == plain.trace.params
    half = one(tracers, lora_r=64, adapter_dtype="bf16")
    assert half.trace.memory.adapters * 2 == wide.trace.memory.adapters
    slim = one(tracers, lora_r=64, optimizer="adamw-8bit")
    assert slim.trace.memory.optimizer * 4 == wide.trace.memory.optimizer


def test_sequences_per_step_scale_the_step_and_not_the_micro_step(tracers):
    plain, short = one(tracers), one(tracers, sequences_per_step=4)
    assert short.micro_s == plain.micro_s
    assert short.step_s - short.update_s == pytest.approx((plain.step_s - plain.update_s) / 4)


def test_hours_are_of_the_lengths_of_a_file(tracers, tmp_path):
    path = tmp_path / "tokens.json"
    plain = one(tracers)
    assert plain.arc_step_s is None and plain.lengths is PUBLISHED  # ARC has no sequence of 64 tokens
    for content in (json.dumps({"a": 32, "b": [32, 32]}), "[32, 32, 32]", "32\n32 32\n", "\ufeff32\r\n32\r\n32"):
        path.write_text(content, encoding="utf-8")
        cell = one(tracers, tokens_per_task=path)
        assert (cell.lengths.count, cell.lengths.mean) == (3, 32)
        seconds = 16 * one(tracers, contexts="32").micro_s + plain.update_s
        assert cell.arc_step_s == pytest.approx(seconds, rel=0.02) and cell.step_s == plain.step_s


def test_hours_are_of_the_lengths_of_a_set(tracers):
    """Estimated here, and by arc-tiny's tokenizer elsewhere (test_cli_ttft has coverage)."""
    cell = one(tracers, tasks="arc1-training")
    assert "arc1-training: estimated" in cell.lengths.name and cell.lengths.count > 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has 0 numbers"), ("[]", "has 0 numbers"), ("1", "1 is no number of tokens"), ("9" * 30, "is no number"),
     ("[64, null]", "None is no number"), ("64 x", "'x' is no number"), ("[1.5]", "1.5 is no number"),
     ("[true]", "True is no number"), ('{"a": "64"}', "'64' is no number")],
)  # fmt: skip
def test_a_file_that_has_no_tokens_is_one_line(tmp_path, content, message):
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        configure("arc-tiny", tokens_per_task=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_r": 0}, "--lora-r must be"),
        ({"adapter_dtype": "fp8"}, "unknown adapter dtype 'fp8'"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"sequences_per_step": 0}, "--sequences-per-step must be"),
        ({"sequences_per_step": 6, "gpu": "4xt4"}, "cannot be shared equally"),
        ({"contexts": "4096"}, "beyond arc-tiny's window of 2048 tokens; --beyond-window"),
        ({"tasks": "nosuch"}, "nosuch"),
        ({"tokenizer": "./nosuch"}, "--tokenizer './nosuch': there is no such folder or GGUF file"),
        ({"tasks": "arc1-training", "tokens_per_task": "x"}, "leave out --tasks and --tokenizer"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as raised:
        configure("arc-tiny", **options)
    assert "\n" not in str(raised.value)


def test_a_context_beyond_the_window_is_predicted_where_that_is_wanted_and_said(tracers, capsys):
    cell = one(tracers, contexts="2112", beyond_window=True)
    assert cell.context == 2112 and "2112 tokens are beyond its window of 2048" in capsys.readouterr().err


def test_the_csv_has_tokens_parameters_the_update_and_both_intervals(tmp_path):
    path = tmp_path / "p.csv"
    with pytest.raises(SystemExit) as ended:
        main(
            ["predict", "arc-tiny", "--precision", "fp16", "--context", "64", "--micro-batch", "1", "--csv", str(path)]
        )
    assert ended.value.code == 0
    (row,) = csv.DictReader(path.read_text().splitlines())
    cell = harness.predict("arc-tiny", precisions="fp16", contexts=64, micro_batch=1).answers[0]
    assert (int(row["tokens_per_step"]), int(row["params"])) == (16 * 64, cell.trace.params)
    assert int(row["trainable_params"]) == cell.trace.trainable and 0 < float(row["update_s"]) < cell.step_s
    low, mid, high = (float(row[f"micro_step_{name}s"]) for name in ("low_", "", "high_"))
    assert low < mid < high and mid / low == pytest.approx(high / mid)
    low, mid, high = (float(row[f"peak_{name}gib"]) for name in ("low_", "", "high_"))
    assert low < mid < high and mid / low == pytest.approx(high / mid)
