"""Models whose real activations exceed fp16's range: flagged by models.yaml or by their type, refused everywhere."""

import io
import json
import shutil
from dataclasses import replace

import pytest
from helpers.records import cell, row
from helpers.sweep import CARD, NATIVE, WORLD, Bench
from rich.console import Console
from test_catalog_models import GOOD

from harness.analysis.candidates import candidates
from harness.analysis.run_hours import default_runs
from harness.analysis.stability import warnings
from harness.analysis.verdict import verdict
from harness.catalog import models as catalog
from harness.catalog import precisions, trainable, weights
from harness.cli import app
from harness.cli.predict import configure
from harness.errors import UserError
from harness.hardware.info import Device, DeviceReport
from harness.measure import plan
from harness.measure.config import SweepConfig
from harness.predict import query
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.records.measurement import MatmulSpeed
from harness.records.store import Store
from harness.report import info
from harness.tune import run
from harness.tune.config import TuneConfig

GEMMA = ModelSpec("gemma", {"model_type": "gemma3_text"}, 4096)
GOAL = Goal(12, 1000, 400)
FAST, SLOW = MatmulSpeed(65e12, 60e12, True), MatmulSpeed(4e12, 3e12, False)
T4 = DeviceReport(
    Device("cuda:0", "Tesla T4", 15 << 30), {"fp32": MatmulSpeed(8e12, 8e12, True), "fp16": FAST, "bf16": SLOW}
)
L4 = replace(T4, rates={**T4.rates, "bf16": FAST})


def test_the_flag_comes_from_models_yaml_or_from_the_type(shipped, tmp_path):
    assert shipped.find("gemma-1b").needs_range == "bf16"
    assert [spec.name for spec in shipped.models.values() if trainable.needs_range(spec)] == [
        "gemma-3-270m",
        "gemma-3-1b",
    ]
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 512}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert trainable.needs_range(shipped.find(str(tmp_path)))
    path = tmp_path / "models.yaml"
    path.write_text(GOOD.replace("    window: 2048\n", "    window: 2048\n    needs_range: bf16\n"))
    assert trainable.needs_range(catalog.load(path).find("a"))
    path.write_text(GOOD.replace("    window: 2048\n", "    window: 2048\n    needs_range: fp16\n"))
    with pytest.raises(UserError, match=r"line 32: models\.a\.needs_range must be one of bf16, not 'fp16'"):
        catalog.load(path)


def test_the_flag_is_no_part_of_what_is_measured():
    flagged = replace(cell(), model=replace(cell().model, needs_range="bf16"))
    assert flagged.key({}) == cell().key({})


@pytest.mark.parametrize(
    ("report", "words", "cells"),
    [
        (T4, ["native", "int4"], ["fp16", "int4", "fp32"]),  # neither can be trained: fp32 is measured as well
        (T4, ["fp16", "fp32"], ["fp16", "fp32"]),
        (L4, ["native", "int4"], ["bf16", "int4"]),
    ],
)
def test_a_device_without_bf16_gets_a_cell_that_can_be_trained(report, words, cells):
    config = SweepConfig(
        models=[(GEMMA, "random")], precisions=[precisions.requested(word) for word in words], recipe=Recipe(),
        contexts={}, sample_seconds={}, cap_seconds={}, goal=GOAL,
    )  # fmt: skip
    assert [c.precision for c in plan.cells(config, [256], report)] == cells


def test_bench_starts_no_cell_that_computes_in_fp16(tmp_path):
    bench = Bench(tmp_path)
    bench.world(WORLD, device=CARD, rates={"fp32": NATIVE, "fp16": {**NATIVE, "forward": 4e12}})
    done, _ = bench.run(names=("native", "int4"), contexts=(256,), spec={"needs_range": "bf16"})
    assert [(r.cell.precision, r.cell.compute_dtype, r.status) for r in done.rows] == [
        ("fp16", "fp16", "unsupported"), ("int4", "fp16", "unsupported"), ("fp32", "fp32", "ok"),
    ]  # fmt: skip
    assert bench.jobs() == ["tiny fp32 256"]
    assert "exceed 65504" in done.rows[0].reason and "choose --precisions bf16 or fp32" in done.rows[0].reason
    assert [verdict(r, None, 12) for r in done.rows[:2]] == ["unstable", "unstable"]


def test_a_row_of_an_earlier_version_is_marked_and_not_picked(tmp_path, capsys):
    """It was measured with random weights, whose activations stay small."""
    old = row(key="old", cell=cell(model=GEMMA, precision="fp16", compute_dtype="fp16"))
    wide = row(key="wide", cell=cell(model=GEMMA, precision="bf16", compute_dtype="bf16"))
    runs = default_runs([old, wide], GOAL)
    assert (verdict(old, runs["old"], 12), verdict(wide, runs["wide"], 12)) == ("unstable", "fits")
    assert any("exceed 65504" in line for line in warnings(old)) and not warnings(wide)
    assert [c.row.key for c in candidates([old, wide], [], GOAL)] == ["wide"]
    Store(tmp_path).add(old)
    with pytest.raises(SystemExit) as end:
        app.main(["pick", "--results", str(tmp_path)])
    assert end.value.code == 1
    assert "gemma fp16 is no candidate: unstable with real weights" in " ".join(capsys.readouterr().out.split())


def test_predict_has_no_answer_for_fp16_and_says_what_to_choose():
    cells = configure("gemma-3-270m", precisions="native int4", contexts="256", gpu="t4")
    answers = query.predict_all(cells, _NoTraces())
    assert [a.precision.name for a in answers] == ["fp16", "int4"]
    assert all("choose --precisions bf16 or fp32" in a.reason for a in answers)
    (largest, _) = query.find_largest(cells, _NoTraces())
    assert "exceed 65504" in largest.reason


class _NoTraces:
    def trace_all(self, keys, on_done):
        assert not keys
        return []


@pytest.mark.parametrize("precision", [None, "fp16", "int4"])
def test_a_fine_tune_in_fp16_is_refused_in_one_line(arc_folder, tmp_path, precision):
    settings = catalog.TuneDefaults(set="generated", grid_limit=30, tasks=1, steps=1, context=256, views=1)
    config = TuneConfig.of(GEMMA, str(arc_folder), settings, recipe=Recipe(), results=tmp_path, precision=precision)
    with pytest.raises(UserError, match=f"gemma {precision or 'fp16'}: unstable with real weights"):
        run.spec_of(config, T4)
    if precision != "fp16":
        assert run.spec_of(config, L4).compute_dtype == "bf16"
    assert run.spec_of(replace(config, precision="fp32"), T4).compute_dtype == "fp32"


def test_plan_says_it_before_the_device_is_known(shipped):
    out = io.StringIO()
    for name in ("gemma-1b", "qwen-0.5b"):
        config = SweepConfig(
            models=[(shipped.find(name), "random")], precisions=[precisions.NATIVE], recipe=Recipe(),
            contexts={"cuda": [256], "cpu": [256]}, sample_seconds={}, cap_seconds={"cuda": 1, "cpu": 1}, goal=GOAL,
        )  # fmt: skip
        info.plan_table(config, Console(file=out, width=80))
    text = " ".join(out.getvalue().split())
    assert "gemma-3-1b: real weights exceed fp16's range" in text and "qwen2.5-0.5b: real" not in text


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("settings", "quantized"),
    [
        (None, None),
        (NF4, "int4"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 'fp4'"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"bits": 4}, "unknown"),
        ("nf4", "unknown"),
    ],
)
def test_what_a_config_says_of_its_weights(settings, quantized):
    assert trainable.quantization_of({} if settings is None else {"quantization_config": settings}) == quantized


@pytest.fixture
def nf4_folder(tiny_folder, tmp_path):
    """A folder with weights whose config.json says that they are bitsandbytes' NF4."""
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny-bnb-4bit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": NF4}))
    return str(folder)


def test_a_quantised_checkpoint_is_measured_in_its_own_precision_alone(shipped, nf4_folder, capsys, tmp_path):
    spec = shipped.find(nf4_folder)
    assert spec.quantized == "int4" and "quantization_config" not in spec.architecture
    assert not trainable.refusal(spec, "int4", "bf16")
    for precision in ("fp16", "bf16", "fp32", "int8"):
        assert "quantised already (int4)" in trainable.refusal(spec, precision, "bf16")
        assert "choose --precisions int4, or name the unquantised model" in trainable.refusal(spec, precision, "bf16")
    gptq = trainable.refusal(replace(spec, quantized="gptq"), "int4", "bf16")
    assert "quantised already (gptq)" in gptq and "--precisions" not in gptq
    # Its own weights are not loaded; that is said, and the row is labelled as one of random weights.
    assert weights.resolve(spec, "auto") == "random"
    assert "not loaded; random ones are measured" in capsys.readouterr().err
    bench = Bench(tmp_path)
    done, _ = bench.run(names=("native", "int4"), contexts=(256,), spec={"quantized": "int4"})
    assert [(r.cell.precision, r.status) for r in done.rows] == [("bf16", "unsupported"), ("int4", "ok")]
    assert bench.jobs() == ["tiny int4 256"]
    assert verdict(done.rows[0], None, 12) == "unsupported"


def test_rows_from_before_do_not_answer_for_a_quantised_checkpoint():
    """They were measured in whatever was asked for; keys of all others stay as they were."""
    quantized = replace(cell(), model=replace(cell().model, quantized="int4"))
    assert quantized.key({}) != cell().key({}) == "a3c1279a3a914f19"


def test_predict_answers_for_a_quantised_checkpoint_in_its_precision_alone(nf4_folder):
    cells = configure(nf4_folder, precisions="native int4", contexts="64", gpu="t4")
    refused, _ = query.predict_all(cells, _Traced())
    assert refused.precision.name == "fp16" and "quantised already (int4)" in refused.reason
    assert _Traced.keys == [("int4", context) for context in (16, 32, 64)]


class _Traced:
    def trace_all(self, keys, on_done):
        _Traced.keys = [(key.precision.name, key.context) for key in keys]
        return ["not traced here" for _ in keys]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ttft", "{folder}"], "tiny-bnb-4bit: accuracy not measured: its weights are quantised already (int4)"),
        (["ttft", "{folder}", "--weights", "hub"], "quantised already (int4), and such are not loaded"),
        (["ttft", "{whole}", "--weights", "{folder}"], "quantised already (int4), and such are not loaded"),
        (["bench", "{whole}", "--weights", "{folder}"], "name unquantised ones"),
    ],
)
def test_quantised_weights_are_refused_in_one_line(nf4_folder, tiny_folder, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        app.main([word.format(folder=nf4_folder, whole=tiny_folder) for word in words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
