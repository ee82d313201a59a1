"""Roofline, calibration and prediction on numbers worked by hand."""

import json
import math
from dataclasses import astuple, replace

import pytest
from helpers.predictions import CARD, OWN_ACCELERATOR, op, predicted, trace
from helpers.records import cell, row

from harness.catalog import accelerators, efficiency, precisions
from harness.catalog import models as catalog
from harness.errors import UserError
from harness.predict import calibration, calibration_files, prediction, roofline, tiles
from harness.predict.answering import CacheSize, DecodeSpeed
from harness.predict.calibration import MemoryPoint, Point
from harness.predict.roofline import (
    BANDWIDTH,
    DEQUANTIZE,
    FUSED_4BIT,
    GEMM,
    HOST,
    KINDS,
    LAUNCH,
)
from harness.records.cell import Goal, Recipe


def test_each_operation_takes_its_arithmetic_or_its_bytes():
    """1 TFLOP at 10 TFLOP/s takes 0.1 s forward and at 5 TFLOP/s 0.2 s backward; a product of 10 GFLOP (1 ms) that
    moves 1 GB at 100 GB/s takes 10 ms and counts as memory. A card's launches of 10 us overlap with computing: 13 are
    its host's 130 us, and of 10 that autograd's engine makes a third."""
    nominal = roofline.nominal_seconds(
        trace(
            op(flops=1e12), op(backward=True, flops=1e12), op(flops=1e10, size=1e9), op(BANDWIDTH, size=1e5, count=10)
        ),
        CARD,
    )
    assert nominal == pytest.approx(dict.fromkeys(KINDS, 0) | {GEMM: 0.3, BANDWIDTH: 0.01001, HOST: 1.3e-4})
    engine = replace(trace(op(BANDWIDTH, size=1e5, count=10)), by_engine=10)
    assert roofline.nominal_seconds(engine, CARD)[HOST] == pytest.approx(3.5e-5)
    assert roofline.seconds(nominal, dict.fromkeys(KINDS, 2.0)) == pytest.approx(0.62002)
    # The longer of the two, and a fifth more where both are alike.
    bound = dict.fromkeys(KINDS, 0.0) | {GEMM: 1.0, HOST: 3.0}
    assert roofline.seconds(bound, dict.fromkeys(KINDS, 1.0)) == pytest.approx(3.0, rel=0.01)
    assert roofline.seconds(bound | {HOST: 1.0}, dict.fromkeys(KINDS, 1.0)) == pytest.approx(2**0.25)
    busy = roofline.nominal_seconds(trace(op(BANDWIDTH, size=1e5, count=10)), replace(CARD, kind="cpu"))
    assert busy[LAUNCH] == pytest.approx(1e-4) and busy[HOST] == 0
    with pytest.raises(UserError, match="card does not compute bf16; it has fp16"):
        roofline.nominal_seconds(trace(op(flops=1.0, dtype="bf16")), CARD)
    with pytest.raises(UserError, match="card: its rates were not probed; bench --fresh"):
        replace(CARD, rates={}).rate("bf16")


def test_bitsandbytes_python_takes_launches_beside_those_of_its_kernels():
    """A product by a 4-bit matrix as long as 3.5 launches more, dequantising as 0.9; on a CPU launches are fitted."""
    for kind, more in ((FUSED_4BIT, 3.5), (DEQUANTIZE, 0.9), (GEMM, 0.0), (BANDWIDTH, 0.0)):
        nominal = roofline.nominal_seconds(trace(op(kind, size=1e5, count=10)), CARD)
        assert nominal[HOST] == pytest.approx(1e-4 * (1 + more)), kind
    on_cpu = roofline.nominal_seconds(trace(op(DEQUANTIZE, size=1e5, count=10)), replace(CARD, kind="cpu"))
    assert on_cpu[LAUNCH] == pytest.approx(1e-4) and on_cpu[HOST] == 0
    # Dequantised before the product, which is another kernel, it is as much Python.
    fused = op(FUSED_4BIT, size=1e5, count=10)
    apart = replace(fused, shape=(4096, 64, 64))
    both = [roofline.nominal_seconds(trace(one), CARD)[HOST] for one in (fused, apart)]
    assert both[1] - both[0] == pytest.approx(1e-4)


def test_decoding_waits_for_the_interpreter_as_training_does():
    """1000 operations of 10 us that a card's host takes three times as long for, 30 ms, beside 1 GB of weights in 10;
    a CPU launches and computes in turn. What the backward launches is none of it."""
    many = trace(op(BANDWIDTH, count=1000), op(BANDWIDTH, backward=True, count=5000), weights=10**9)
    slow = replace(calibration.prior("cuda"), slowdown=dict.fromkeys(KINDS, 1.0) | {HOST: 3.0, LAUNCH: 2.0})
    speed = DecodeSpeed.of(many, CARD, slow, CacheSize(1000, 0))
    assert speed.step_s == pytest.approx((0.03**4 + 0.01**4) ** 0.25)
    on_cpu = DecodeSpeed.of(many, replace(CARD, kind="cpu"), slow, CacheSize(1000, 0))
    assert on_cpu.step_s == pytest.approx(0.02 + 0.01)


def points(slowdown, models=("a", "b", "c"), noise=lambda i: 1.0):
    out = []
    for i in range(24):
        nominal = dict.fromkeys(KINDS, 0.0)
        nominal |= {GEMM: 1.0 + i % 5, BANDWIDTH: 0.5 + i % 3, LAUNCH: 0.3 * (i % 4)}
        out.append(Point(models[i % len(models)], nominal, roofline.seconds(nominal, slowdown) * noise(i)))
    return out


TRUE = dict.fromkeys(KINDS, 1.0) | {GEMM: 1.7, BANDWIDTH: 2.5, LAUNCH: 3.0}


def test_many_measurements_outweigh_the_prior_and_one_does_not():
    fitted = calibration.fit("d", "cuda", points(TRUE))
    for kind in (GEMM, BANDWIDTH, LAUNCH):
        assert fitted.slowdown[kind] == pytest.approx(TRUE[kind], rel=0.1)
    assert fitted.error == 0.05  # never told to be better than that
    assert fitted.models == ("a", "b", "c") and fitted.points == 24
    # One rough row, three times slower than assumed: it moves what it is made of, by less than that.
    assumed = calibration.prior("cuda").slowdown
    nominal = dict.fromkeys(KINDS, 0.0) | {GEMM: 1.0}
    one = calibration.fit("d", "cuda", [Point("a", nominal, 3 * assumed[GEMM], log_sigma=0.5)])
    assert assumed[GEMM] * 1.2 < one.slowdown[GEMM] < assumed[GEMM] * 2.5
    assert one.slowdown[BANDWIDTH] == pytest.approx(assumed[BANDWIDTH])
    with pytest.raises(UserError, match="nothing measured"):
        calibration.fit("d", "cuda", [])


def test_the_error_is_that_of_models_left_out():
    """Model b takes 1.5 times as long as its operations say: with b left out it is missed by that, and seen."""
    odd = points(TRUE, noise=lambda i: 1.5 if i % 3 == 1 else 1.0)
    for point, slow in calibration.left_out("cuda", odd):
        if point.model == "b":
            assert point.seconds / roofline.seconds(point.nominal, slow) == pytest.approx(1.5, rel=0.05)
    assert calibration.fit("d", "cuda", odd).error > 0.2


def test_memory_by_hand():
    """Peaks made of 400 held besides, what is persistent, and 1.5 times what is transient, in fp32 twice."""
    sizes = [("a", 100, 900), ("b", 700, 200), ("c", 50, 50)]
    held = [MemoryPoint(m, s, p, round(400 + s + 1.5 * p)) for m, s, p in sizes]
    wide = [MemoryPoint(m, s, p, 400 + s + 2 * p, fp32=True) for m, s, p in sizes]
    fitted = calibration.fit_memory(held + wide, "cpu")
    assert astuple(fitted) == pytest.approx((400, 1.5, 2.0), rel=0.01)
    assert fitted.peak(wide[0]) == pytest.approx(wide[0].peak, rel=0.01)
    # One width alone, or a single row of the other, gives one spread for both.
    for rows in (held, wide[:1] + held[:1] + held[2:]):
        one = calibration.fit_memory(rows, "cpu")
        assert one.fragmentation == one.fragmentation_fp32
    assert astuple(calibration.fit_memory(held, "cpu")) == pytest.approx((400, 1.5, 1.5), rel=0.01)
    assert astuple(calibration.fit_memory(held[:1], "cuda")) == (0.0, 1.1, 1.1)


def test_a_calibration_of_before_has_one_spread():
    assert replace(calibration.prior("cpu"), fragmentation=1.7).allocator == calibration.Allocator(0.0, 1.7, 1.7)


def test_a_calibration_survives_its_file_and_others_are_refused(tmp_path):
    fitted = calibration.fit("d", "cuda", points(TRUE), source="here")
    calibration.save_calibration(fitted, tmp_path / "c.json")
    assert calibration.load_calibration(tmp_path / "c.json") == fitted
    whole = json.loads((tmp_path / "c.json").read_text())
    assert whole["slowness"] and whole["spread"] == whole["spread_fp32"]  # as in files of earlier versions
    broken = [{}, [], {"models": [], "device": "d"}, whole | {"error": "small"}, whole | {"slowness": {GEMM: 1.0}},
              whole | {"kind": "tpu"}, whole | {"nominal": {"name": "mine"}}]  # fmt: skip
    for text in ("{", *map(json.dumps, broken)):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="is no calibration"):
            calibration.load_calibration(tmp_path / "bad.json")


def test_hours_are_over_arcs_lengths():
    """A micro-step of n / 1024 s: over lengths to 1024, straight from 350, the mean is that of 687 tokens."""
    hours = predicted()
    assert hours.micro_s == pytest.approx(1.0)
    assert hours.arc_step_s == pytest.approx(16 * 687 / 1024, rel=0.01)
    low, mid, high = hours.hours(Goal(12, 1000, 0))
    assert mid == pytest.approx((1000 * hours.arc_step_s + hours.load_s + hours.step_s) / 3600)
    assert low < mid < high and (high / mid) == pytest.approx(math.exp(0.196), rel=0.01)
    assert hours.hours(Goal(12, 1000, 400))[1] > mid  # answers come out of the same budget
    quadratic = predicted(seconds=lambda n: (n / 1024) ** 2)
    assert quadratic.arc_step_s / 16 > (687 / 1024) ** 2 * 1.02  # not the seconds of the mean length
    assert predicted(context=300).arc_step_s is None


def test_two_cards_share_sequences_or_layers():
    one = predicted(weights=8 << 30, activations=4 << 30, logits=1 << 30)
    data = predicted(replace(Recipe(), data_parallel=2), weights=8 << 30, activations=4 << 30, logits=1 << 30)
    layers = predicted(replace(Recipe(), layer_split=2), weights=8 << 30, activations=4 << 30, logits=1 << 30)
    assert data.step_s == pytest.approx(one.step_s / 2, rel=0.01) and data.peak_bytes == one.peak_bytes
    assert layers.step_s == one.step_s
    # Half of weights and activations, and the logits, for which the allocator holds half as much again.
    assert layers.peak_bytes == pytest.approx(CARD.context_bytes + (7.5 * 2**30))


def test_a_cpus_base_is_what_the_imports_take_here():
    """Fitted where they took 400 MB; a CUDA build of torch takes 400 MB more, which every process then holds more."""

    def peak(imported, known=400 << 20):
        here = replace(CARD, kind="cpu", context_bytes=imported)
        fitted = replace(calibration.prior("cpu"), base_bytes=500 << 20, imported_bytes=known)
        request = prediction.PredictRequest(
            spec=catalog.load().find("qwen2.5-0.5b"),
            precision=precisions.find("fp16"),
            recipe=Recipe(),
            context=64,
            accelerator=here,
            calibration=fitted,
        )
        return prediction.predict_cell(request, {64: trace(op(flops=1e9), weights=1 << 30)}).peak_bytes

    assert peak(400 << 20) == (1 << 30) + (500 << 20)
    assert peak(800 << 20) == (1 << 30) + (900 << 20)
    assert peak(0) == peak(800 << 20, known=0) == (1 << 30) + (500 << 20)


def test_whether_it_fits():
    assert predicted(weights=8 << 30).fits_memory() is True
    assert predicted(weights=15 << 30).fits_memory() is None
    big = predicted(weights=40 << 30)
    assert big.fits_memory() is False and big.verdict(Goal(12, 1000, 0)) == "too big"
    assert predicted().verdict(Goal(12, 1000, 0)) == "fits"
    # On either side of the card's memory, the interval beyond it.
    for weights, word in ((15 << 30, "fits?"), (16 << 30, "too big?")):
        assert predicted(weights=weights).fits_memory() is None
        assert predicted(weights=weights).verdict(Goal(12, 1000, 0)) == word
    assert predicted().verdict(Goal(1, 1000, 0)) == "too slow"
    # The answers are in the hours, so all of the budget may be used.
    whole = predicted().hours(Goal(1, 1000, 400))[2]
    assert predicted().verdict(Goal(whole * 1.001, 1000, 400)) == "fits"
    assert predicted().verdict(Goal(whole * 0.999, 1000, 400)) == "unsure"
    assert predicted().verdict(Goal(predicted().hours(Goal(1, 1000, 0))[1], 1000, 0)) == "unsure"


def test_far_from_all_that_was_measured_is_said_and_wider():
    near, distant = predicted(), predicted(seconds=lambda n: 100 * n / 1024)
    assert near.caveats == () and "over 4 times beyond" in distant.caveats[0] and distant.log_sigma > near.log_sigma
    other = predicted(replace(Recipe(), implementation="reference"))
    assert "another step" in other.caveats[0] and other.log_sigma > near.log_sigma


def test_the_shipped_calibrations_serve(tmp_path):
    t4 = calibration_files.for_card(accelerators.find("t4"), tmp_path)
    assert t4.points >= 6 and "published" in t4.source
    assert calibration_files.for_card(accelerators.find("l4"), tmp_path).points == 0
    here = accelerators.cpu("Some CPU, 2 threads", 8 << 30, {})
    assert "another CPU" in calibration_files.for_cpu(here, tmp_path)[1].source
    own = tmp_path / "some-cpu-2-threads"
    own.mkdir()
    calibration.save_calibration(
        calibration.fit("Some CPU, 2 threads", "cpu", points(TRUE), source="own"), own / calibration_files.NAME
    )
    assert calibration_files.for_cpu(here, tmp_path)[1].source == "own"


def test_evidence_follows_from_where_the_figures_come(tmp_path):
    """What was measured is narrower than what was fitted on other cards, and that than a sheet alone."""
    mine = tmp_path / "card.yaml"
    mine.write_text(OWN_ACCELERATOR)
    kinds = {
        name: calibration_files.for_card(accelerators.find(name), tmp_path) for name in ("t4", "l4", "b200", str(mine))
    }
    assert [one.evidence for one in kinds.values()] == [
        calibration.MEASURED_ELSEWHERE, calibration.FITTED, calibration.SPECIFICATION, calibration.SPECIFICATION
    ]  # fmt: skip
    assert kinds["l4"].error < kinds["b200"].error
    here = accelerators.cpu("Some CPU, 2 threads", 8 << 30, {})
    assert calibration_files.for_cpu(here, tmp_path)[1].evidence == calibration.MEASURED_ELSEWHERE
    own = tmp_path / "tesla-t4"
    own.mkdir()
    calibration.save_calibration(calibration.fit("t4", "cuda", points(TRUE)), own / calibration_files.NAME)
    assert calibration_files.for_card(accelerators.find("t4"), tmp_path).evidence == calibration.MEASURED_HERE


def test_a_card_below_its_watts_is_not_asked_for_its_peak():
    """An L4 has 121 TFLOP/s and 72 W; a 3090 needs few of its 350 for 71. One row more may be a whole wave of tiles."""
    l4, geforce, a100 = (efficiency.product_share(accelerators.find(name)) for name in ("l4", "rtx-3090", "a100-80gb"))
    assert l4 < 0.5 < 0.7 < a100 < 0.85 < geforce
    full, spilled = (tiles.idle_factor(rows, 256, 4096, 64) for rows in (4096, 4097))
    assert spilled > 1.2 * full


def _row_on(name, processes=1, micro_s=1.0, device="cuda:0"):
    on = cell(device=device, device_name=name, compute_dtype="fp16", recipe=Recipe(data_parallel=processes))
    return row((micro_s,) * 6, cell=on, device_total_bytes=15 << 30, memory={"steady": {"process": 2 << 30}})


def test_a_record_of_several_cards_calibrates_one(monkeypatch):
    """Each card makes micro-steps of its own: those of `--gpus 2` count beside those of one such card."""
    monkeypatch.setattr(
        calibration_files.trace_pool,
        "trace_all",
        lambda keys, *_: [trace(op(flops=1e12), weights=1 << 30) for _ in keys],
    )
    both = [_row_on("2 x Tesla T4", 2, 1.1), _row_on("2 x Tesla T4", 2, 1.3)]
    accelerator, measured = calibration_files.points_of_rows(both)
    assert (accelerator.name, accelerator.count) == ("t4", 1)
    assert [point.seconds for _, point, _ in measured] == [1.1, 1.3]
    assert calibration_files.calibrated(both, "own").device == "t4"
    mixed = [_row_on("Tesla T4", 1, 0.9), _row_on("NVIDIA L4", 1, 0.4), *both]
    assert [point.seconds for _, point, _ in calibration_files.points_of_rows(mixed)[1]] == [0.9, 1.1, 1.3]


def test_a_record_of_processes_that_share_a_cpu_is_one_line():
    with pytest.raises(UserError, match="without it"):
        calibration_files.points_of_rows([_row_on("2 x A CPU", 2, device="cpu")])
