"""Which precisions a sweep measures on which device, and that a fine-tune and a prediction speak of the same cells."""

from dataclasses import replace

import pytest
from helpers.records import TINY

from harness.catalog import accelerators, precisions
from harness.catalog.models import TuneDefaults
from harness.hardware.info import Device, DeviceReport
from harness.measure import plan
from harness.measure.config import SweepConfig
from harness.predict.calibration import prior
from harness.predict.query import PredictQuery
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.records.measurement import MatmulSpeed
from harness.tune import run
from harness.tune.config import TuneConfig

SPEC = ModelSpec("tiny", TINY, 4096)
FAST, SLOW = MatmulSpeed(65e12, 60e12, True), MatmulSpeed(4e12, 3e12, False)
FP32 = MatmulSpeed(8e12, 8e12, True)
T4 = DeviceReport(Device("cuda:0", "Tesla T4", 15 << 30), {"fp32": FP32, "fp16": FAST, "bf16": SLOW})
L4 = DeviceReport(Device("cuda:0", "NVIDIA L4", 22 << 30), {"fp32": FP32, "fp16": FAST, "bf16": FAST})
OLD_CPU = DeviceReport(Device("cpu", "a CPU", 8 << 30), {"fp32": FP32, "fp16": SLOW, "bf16": SLOW})


def names_of(words, report):
    config = SweepConfig(
        models=[(SPEC, "random")], precisions=[precisions.requested(word) for word in words], recipe=Recipe(),
        contexts={}, sample_seconds={}, cap_seconds={}, goal=Goal(12, 1000, 400),
    )  # fmt: skip
    return [(cell.precision, cell.compute_dtype) for cell in plan.cells(config, [256], report)]


@pytest.mark.parametrize(("report", "native"), [(T4, "fp16"), (L4, "bf16"), (OLD_CPU, "fp32")])
def test_by_default_the_native_precision_and_int4_in_it(shipped, report, native):
    words = shipped.defaults.precisions
    assert names_of(words, report) == [(native, native), ("int4", native)]


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["native", "fp16"], ["fp16"]),
        (["bf16", "native"], ["bf16", "fp16"]),  # emulated, and what it is instead
        (["fp32", "fp16"], ["fp32", "fp16"]),  # what is named is taken as it is
    ],
)
def test_no_cell_is_there_twice(words, cells):
    assert [name for name, _ in names_of(words, T4)] == cells


@pytest.mark.parametrize("report", [T4, L4, OLD_CPU])
def test_a_fine_tune_is_by_default_of_a_cell_that_a_bench_measures(shipped, arc_folder, tmp_path, report):
    settings = TuneDefaults(set="generated", grid_limit=30, tasks=1, steps=1, context=256, views=1)
    config = TuneConfig.of(SPEC, str(arc_folder), settings, recipe=Recipe(), results=tmp_path)
    cells = names_of(shipped.defaults.precisions, report)
    for precision in (None, "native"):
        spec = run.spec_of(replace(config, precision=precision), report)
        assert (spec.precision, spec.compute_dtype) == cells[0]
    int4 = run.spec_of(replace(config, precision="int4"), report)
    assert (int4.precision, int4.compute_dtype) == cells[1]


def test_a_prediction_is_of_the_cells_of_a_bench(shipped):
    cards = [(accelerators.find(name), prior("cuda")) for name in ("t4", "l4")]
    words = [*shipped.defaults.precisions, "bf16"]
    query = PredictQuery(
        models=[SPEC], precisions=[precisions.requested(word) for word in words], contexts=[256],
        accelerators=cards, recipes=dict.fromkeys(words, Recipe()), goal=Goal(12, 1000, 400),
    )  # fmt: skip
    cells = [(r.accelerator.name, r.precision.name, r.compute_dtype) for r in query.requests(query.contexts)]
    assert cells == [
        ("t4", "fp16", "fp16"), ("l4", "bf16", "bf16"), ("t4", "int4", "fp16"), ("l4", "int4", "bf16"),
        ("t4", "bf16", "bf16"),
    ]  # fmt: skip


def test_of_two_native_dtypes_a_prediction_takes_the_one_that_the_probe_takes():
    """bf16 where both are about as fast; fp16 where bf16 is clearly slower, as the rule of the probe has it."""
    for bf16, native in ((60e12, "bf16"), (20e12, "fp16")):
        rates = {"fp32": FP32, "fp16": FAST, "bf16": MatmulSpeed(bf16, bf16, True)}
        card = accelerators.of_probe("a card", "cuda", 1 << 30, rates)
        assert precisions.native_dtype(rates) == card.native_half == native
