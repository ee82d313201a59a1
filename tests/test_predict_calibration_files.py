"""Which accelerator and calibration serve a device: of the table, of the user's own, or none but its probe."""

from dataclasses import replace

import pytest
from helpers.predictions import op, trace
from helpers.records import cell, row
from helpers.sweep import CARD as CARD_WORLD
from helpers.sweep import WORLD, Bench

from harness.catalog import accelerators
from harness.errors import UserError
from harness.hardware.info import Device, DeviceReport
from harness.predict import calibration, calibration_files, query, trace_pool, tracer
from harness.predict.cells import CellPredictor, device_at_hand
from harness.records.measurement import MatmulSpeed
from harness.records.store import Store

NAME = "NVIDIA GeForce RTX 3080"
RATES = {"fp16": MatmulSpeed(40e12, 30e12, True), "bf16": MatmulSpeed(39e12, 30e12, True)}
CARD = Device("cuda:0", NAME, 10 << 30, capability="8.6")
REPORT = DeviceReport(CARD, {**RATES, "fp32": MatmulSpeed(9e12, 9e12, True)}, bandwidth=700e9)
SLICE = replace(CARD, name="NVIDIA A100-SXM4-80GB MIG 1g.10gb", capability="8.0")


def rows(name=NAME, **changes):
    on = cell(device="cuda:0", device_name=name, compute_dtype="fp16", precision="fp16")
    fields = {"rate": RATES["fp16"], "bandwidth": 700e9, "environment": {"capability": "8.6"}}
    return [
        row((seconds,) * 6, cell=on, device_total_bytes=10 << 30, memory={"steady": {"process": 2 << 30}},
            **(fields | changes))
        for seconds in (0.2, 0.21)
    ]  # fmt: skip


@pytest.fixture
def traced(monkeypatch):
    traces = lambda keys, *_: [trace(op(flops=1e12), weights=1 << 30) for _ in keys]  # noqa: E731
    monkeypatch.setattr(calibration_files.trace_pool, "trace_all", traces)


@pytest.mark.parametrize("device", [CARD, SLICE])
def test_a_card_in_no_table_is_predicted_from_its_probe(tmp_path, device):
    card, assumed = device_at_hand(replace(REPORT, device=device), tmp_path)
    assert (card.name, card.memory_bytes, card.bandwidth) == (device.name, 10 << 30, 700e9)
    assert assumed.points == 0 and f"the table has no {device.name}" in assumed.source


def test_calibrate_serves_a_card_in_no_table(tmp_path, traced):
    """The record's own rates make the accelerator; the calibration keeps them, and bench's next sweep uses it."""
    fitted = calibration_files.calibrated(rows(), "own rows")
    assert (fitted.device, fitted.points) == (NAME, 2)
    assert fitted.nominal.rate("fp16") == (40e12, 30e12) and fitted.nominal.capability == "8.6"
    folder = tmp_path / "rtx-3080"
    folder.mkdir()
    calibration.save_calibration(fitted, folder / calibration_files.NAME)
    # A later probe found other rates: seconds are relative to those of the calibration.
    later = replace(REPORT, rates={name: MatmulSpeed(1e12, 1e12, True) for name in ("fp16", "bf16", "fp32")})
    card, own = device_at_hand(later, tmp_path)
    assert own.source == "own rows" and card.rate("fp16") == (40e12, 30e12)
    # What it was not fitted on is not lost.
    assert card.rate("bf16") == (1e12, 1e12) and set(card.native) == {"fp16", "bf16", "fp32"}
    predictor = CellPredictor(later, folder, {}, lambda *_: {"unsupported": "no trace"})
    assert "matrix product" not in predictor.predict(cell(device_name=NAME, compute_dtype="bf16", precision="bf16"))


def test_a_cell_counts_the_less_the_more_its_samples_scatter(traced):
    """Of an H100 in a virtual machine the same micro-step took 65 to 124 ms; 3 % are what any machine drifts."""
    even = rows()[0]
    uneven, single = (replace(even, micro_s=samples) for samples in ((0.07, 0.12) * 3, (0.2,)))
    _, seen = calibration_files.points_of_rows([even, uneven, single])
    # ln(0.12 / 0.07) is 0.54, its standard deviation over six 0.295; three bursts in a few seconds.
    sigmas = [point.log_sigma for _, point, _ in seen]
    assert sigmas == pytest.approx([0.03, 0.295 / 3**0.5, 0.03], abs=0.005)


def test_a_slices_calibration_is_not_the_whole_cards(tmp_path, traced):
    fitted = calibration_files.calibrated(rows(SLICE.name), "a slice")
    calibration.save_calibration(replace(fitted, device="NVIDIA A100-SXM4-80GB"), tmp_path / "c.json")
    folder = tmp_path / "results" / "slice"
    folder.mkdir(parents=True)
    calibration.save_calibration(replace(fitted, device="NVIDIA A100-SXM4-80GB"), folder / calibration_files.NAME)
    assert calibration_files.for_card(accelerators.find("a100-80gb"), tmp_path / "results").points == 0


def test_a_calibrated_card_can_be_named_for_predict(tmp_path, traced, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown accelerator"):
        query.card_named(NAME)
    folder = tmp_path / "results" / "rtx-3080"
    folder.mkdir(parents=True)
    calibration.save_calibration(calibration_files.calibrated(rows(), "own rows"), folder / calibration_files.NAME)
    for name, count in {"rtx-3080": 1, "2xrtx_3080": 2, NAME: 1}.items():
        card, own = query.card_named(name)
        assert (card.memory_bytes, card.count, own.source) == (10 << 30, count, "own rows")
    with pytest.raises(UserError, match="unknown accelerator"):
        query.card_named("rtx-3080-ti")


def test_the_last_sweep_on_such_a_card_serves_plan(tmp_path):
    folder = tmp_path / "results" / "rtx-3080"
    folder.mkdir(parents=True)
    Store(folder).add(rows()[0])
    card, assumed = calibration_files.last_swept_device(tmp_path / "results")
    assert (card.name, card.bandwidth) == (NAME, 700e9) and assumed.points == 0


def test_old_rows_without_bandwidth_or_environment_serve_too(traced):
    (first, _) = rows(bandwidth=None, environment={})
    assert calibration_files.calibrated([first], "old").nominal.origin.endswith("assumed from them")
    with pytest.raises(UserError, match="unknown accelerator"):
        calibration_files.calibrated(rows(rate=None), "no rates")


@pytest.mark.parametrize("name", [NAME, SLICE.name])
def test_autotune_on_a_card_in_no_table_has_predictions_to_go_by(tmp_path, name):
    """The two most promising variants are measured, not the cell as it is."""
    bench = Bench(tmp_path)
    rates = {dtype: WORLD["rates"]["fp32"] for dtype in ("fp32", "fp16")}
    bench.world(WORLD | {"device": CARD_WORLD | {"name": name}, "rates": rates, "bandwidth": 2.5e11})
    swept, watch = bench.run(("fp16",), (256,), arc_lengths=False, autotune=True)
    assert [status for _, status, _ in watch.rows] == ["ok", "ok"]
    assert swept.rows[0].cell.why.startswith("fitted: micro-batch")


def test_what_the_imports_take_is_asked_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    asked = []

    def ask(job, payload):
        asked.append(job)
        return {"bytes": 700 << 20}

    assert trace_pool.imported_bytes({"torch": "1"}) == 0  # nobody to ask
    assert [trace_pool.imported_bytes({"torch": "1"}, ask) for _ in range(2)] == [700 << 20] * 2
    assert asked == [trace_pool.IMPORTED]
    assert trace_pool.imported_bytes({"torch": "2"}, lambda *_: {"no": "answer"}) == 0
    # The real job reads it before anything is built: torch and transformers alone are more than 100 MB.
    assert tracer.imported_job(None, print)["bytes"] > 100 << 20
