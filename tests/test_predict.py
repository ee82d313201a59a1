"""Roofline, calibration and prediction on numbers worked by hand; what is asked of `harness predict`, good and bad."""

import csv
import json
import math
from dataclasses import replace

import pytest

from harness import outlook
from harness.catalog import accelerators, precisions
from harness.catalog import models as catalog
from harness.cli import main
from harness.errors import UserError
from harness.forecast import calibrate, known, predict, roofline
from harness.forecast.calibrate import HeldMemory, Point
from harness.forecast.roofline import ATTENTION, DEQUANTIZE, KINDS, LAUNCH, MEMORY, PRODUCT, THIN, Memory, Op, Trace
from harness.forecast.traces import Tracers
from harness.profile.provenance import versions
from harness.records import Goal, Recipe

CARD = accelerators.Accelerator("card", 16 << 30, 100e9, {"fp16": (10e12, 5e12)}, ("fp16",), launch_s=1e-5)


def op(kind=PRODUCT, backward=False, flops=0.0, size=0.0, count=1, dtype="fp16"):
    return Op(kind, backward, dtype, flops, size, count)


def trace(*ops, tokens=1024, **memory):
    return Trace(ops, Memory(**memory), 1000, 10, 1, tokens)


def test_each_operation_takes_its_arithmetic_or_its_bytes():
    """1 TFLOP at 10 TFLOP/s takes 0.1 s forward and at 5 TFLOP/s 0.2 s backward; a product of 10 GFLOP (1 ms) that
    moves 1 GB at 100 GB/s takes 10 ms and counts as memory. A card waits where a launch of 10 us is longer than its
    operation: ten of 1 us (100 kB) wait 9 us each."""
    found = roofline.nominal_seconds(
        trace(op(flops=1e12), op(backward=True, flops=1e12), op(flops=1e10, size=1e9), op(MEMORY, size=1e5, count=10)),
        CARD,
    )
    assert found == pytest.approx({PRODUCT: 0.3, THIN: 0, ATTENTION: 0, MEMORY: 0.01001, DEQUANTIZE: 0, LAUNCH: 9e-5})
    assert roofline.seconds(found, dict.fromkeys(KINDS, 2.0)) == pytest.approx(0.6202)
    busy = roofline.nominal_seconds(trace(op(MEMORY, size=1e5, count=10)), replace(CARD, kind="cpu"))
    assert busy[LAUNCH] == pytest.approx(1e-4)
    with pytest.raises(UserError, match="card does not compute bf16; it has fp16"):
        roofline.nominal_seconds(trace(op(flops=1.0, dtype="bf16")), CARD)


def points(slowness, models=("a", "b", "c"), noise=lambda i: 1.0):
    out = []
    for i in range(24):
        nominal = dict.fromkeys(KINDS, 0.0)
        nominal |= {PRODUCT: 1.0 + i % 5, MEMORY: 0.5 + i % 3, LAUNCH: 0.1 * (i % 4)}
        out.append(Point(models[i % len(models)], nominal, roofline.seconds(nominal, slowness) * noise(i)))
    return out


TRUE = {PRODUCT: 1.7, THIN: 1.0, ATTENTION: 1.0, MEMORY: 2.5, DEQUANTIZE: 1.0, LAUNCH: 3.0}


def test_many_measurements_outweigh_the_prior_and_one_does_not():
    fitted = calibrate.fit("d", "cuda", points(TRUE))
    for kind in (PRODUCT, MEMORY, LAUNCH):
        assert fitted.slowness[kind] == pytest.approx(TRUE[kind], rel=0.1)
    assert fitted.error == 0.05  # never told to be better than that
    assert fitted.models == ("a", "b", "c") and fitted.points == 24
    # One rough row, three times slower than assumed: it moves what it is made of, by less than that.
    assumed = calibrate.prior("cuda").slowness
    nominal = dict.fromkeys(KINDS, 0.0) | {PRODUCT: 1.0}
    one = calibrate.fit("d", "cuda", [Point("a", nominal, 3 * assumed[PRODUCT], sigma=0.5)])
    assert assumed[PRODUCT] * 1.2 < one.slowness[PRODUCT] < assumed[PRODUCT] * 2.5
    assert one.slowness[MEMORY] == pytest.approx(assumed[MEMORY])
    with pytest.raises(UserError, match="nothing measured"):
        calibrate.fit("d", "cuda", [])


def test_the_error_is_that_of_models_left_out():
    """Model b takes 1.5 times as long as its operations say: with b left out it is missed by that, and seen."""
    odd = points(TRUE, noise=lambda i: 1.5 if i % 3 == 1 else 1.0)
    for point, slow in calibrate.left_out("cuda", odd):
        if point.model == "b":
            assert point.seconds / roofline.seconds(point.nominal, slow) == pytest.approx(1.5, rel=0.05)
    assert calibrate.fit("d", "cuda", odd).error > 0.2


def test_memory_by_hand():
    """Peaks made of 400 held besides, what stands, and 1.5 times what passes."""
    held = [
        HeldMemory(m, s, p, round(400 + s + 1.5 * p)) for m, s, p in [("a", 100, 900), ("b", 700, 200), ("c", 50, 50)]
    ]
    assert calibrate.fit_memory(held, "cpu") == pytest.approx((400, 1.5), rel=0.01)
    assert calibrate.fit_memory(held[:1], "cuda") == (0.0, 1.1)


def test_a_calibration_survives_its_file_and_others_are_refused(tmp_path):
    found = calibrate.fit("d", "cuda", points(TRUE), source="here")
    calibrate.write(found, tmp_path / "c.json")
    assert calibrate.read(tmp_path / "c.json") == found
    for text in ("{", "{}", json.dumps({"models": [], "device": "d"})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="is no calibration"):
            calibrate.read(tmp_path / "bad.json")


def predicted(recipe=None, seconds=lambda n: n / 1024, on=CARD, context=1024, **memory):
    """A prediction of a device whose products take `seconds` a micro-step, at nominal speed."""
    spec = catalog.load().find("qwen2.5-0.5b")
    certain = replace(calibrate.prior("cuda"), slowness=dict.fromkeys(KINDS, 1.0), error=0.1, spread=1.0, points=9,
                      seconds_low=0.1, seconds_high=10.0)  # fmt: skip
    by_length = {n: trace(op(flops=10e12 * seconds(n)), tokens=n, **memory) for n in predict.contexts_for(context)}
    return predict.predict(spec, precisions.find("fp16"), recipe or Recipe(), on, by_length, context, certain)


def test_hours_are_over_arcs_lengths():
    """A micro-step of n / 1024 s: over lengths to 1024, straight from 350, the mean is that of 687 tokens."""
    found = predicted()
    assert found.micro_s == pytest.approx(1.0)
    assert found.arc_step_s == pytest.approx(16 * 687 / 1024, rel=0.01)
    low, mid, high = found.hours(Goal(12, 1000, 0))
    assert mid == pytest.approx((1000 * found.arc_step_s + found.load_s + found.step_s) / 3600)
    assert low < mid < high and (high / mid) == pytest.approx(math.exp(0.196), rel=0.01)
    assert found.hours(Goal(12, 1000, 400))[1] > mid  # answers come out of the same budget
    quadratic = predicted(seconds=lambda n: (n / 1024) ** 2)
    assert quadratic.arc_step_s / 16 > (687 / 1024) ** 2 * 1.02  # not the seconds of the mean length
    assert predicted(context=300).arc_step_s is None


def test_two_cards_share_sequences_or_layers():
    one = predicted(weights=8 << 30, activations=4 << 30, logits=1 << 30)
    data = predicted(replace(Recipe(), processes=2), weights=8 << 30, activations=4 << 30, logits=1 << 30)
    layers = predicted(replace(Recipe(), layer_split=2), weights=8 << 30, activations=4 << 30, logits=1 << 30)
    assert data.step_s == pytest.approx(one.step_s / 2, rel=0.01) and data.peak_bytes == one.peak_bytes
    assert layers.step_s == one.step_s
    assert layers.peak_bytes == pytest.approx(CARD.context_bytes + (7 << 30))


def test_whether_it_fits():
    assert predicted(weights=8 << 30).fits_memory() is True
    assert predicted(weights=15 << 30).fits_memory() is None
    big = predicted(weights=40 << 30)
    assert big.fits_memory() is False and big.verdict(Goal(12, 1000, 0)) == "too big"
    assert predicted().verdict(Goal(12, 1000, 0)) == "fits"
    assert predicted().verdict(Goal(1, 1000, 0)) == "too slow"
    assert predicted().verdict(Goal(predicted().hours(Goal(1, 1000, 0))[1], 1000, 0)) == "unsure"


def test_far_from_all_that_was_measured_is_said_and_wider():
    near, far = predicted(), predicted(seconds=lambda n: 100 * n / 1024)
    assert near.far == () and "over 4 times beyond" in far.far[0] and far.sigma > near.sigma
    other = predicted(replace(Recipe(), implementation="reference"))
    assert "another step" in other.far[0] and other.sigma > near.sigma


# Accelerators


@pytest.mark.parametrize("name", list(accelerators.ACCELERATORS))
def test_every_accelerator_has_whole_figures(name):
    card = accelerators.find(name)
    assert card.memory_bytes > 10 << 30 and card.bandwidth > 1e11
    assert card.rate("fp32")[0] > 5e12 and card.rate("bf16")[0] > 1e12
    assert ("bf16" in card.native) == (float(card.capability) >= 8)


def test_names_as_people_write_them():
    assert accelerators.find("Tesla T4").name == accelerators.find("T4").name == "t4"
    assert accelerators.find("NVIDIA A100").name == "a100-80gb"
    assert accelerators.find("2xt4").count == 2
    with pytest.raises(UserError, match="unknown accelerator 'rtx 3091'; did you mean rtx-3090"):
        accelerators.find("rtx 3091")


OWN = "name: mine\nmemory: 24 GiB\nbandwidth: 936 GB/s\nfp32: 35.6 TFLOP/s\nfp16: 71 TFLOP/s\nbf16: emulated\n"


def test_an_accelerator_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    card = accelerators.find(str(path))
    assert (card.name, card.memory_bytes, card.bandwidth) == ("mine", 24 << 30, 936e9)
    assert card.native == ("fp32", "fp16") and card.rate("bf16")[0] < card.rate("fp32")[0]


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("bandwidth: 936 GB/s", "bandwidth: 0 GB/s", "line 3: bandwidth must be above 0"),
        ("bandwidth: 936 GB/s", "bandwidth: 936", "line 3: bandwidth needs a number with its unit, as in '24 GB/s'"),
        ("memory: 24 GiB", "memory: 24 TFLOP/s", "line 2: memory needs a number with its unit"),
        ("memory: 24 GiB\n", "", "memory is missing; write it with its unit"),
        ("fp16: 71 TFLOP/s", "fp16: many", "line 5: fp16 needs a number"),
        ("name: mine", "name: mine\ncolour: red", "colour is not a known key"),
        ("name: mine", "name: mine\nname: mine", "name is given twice"),
    ],
)
def test_a_bad_accelerator_is_one_line(tmp_path, line, instead, said):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(line, instead))
    with pytest.raises(UserError, match=said):
        accelerators.find(str(path))


def test_a_dtype_that_a_card_lacks(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace("bf16: emulated\n", ""))
    with pytest.raises(UserError, match="mine does not compute bf16; it has fp16, fp32"):
        outlook.answer(asked(precisions="bf16", gpus=str(path)), None)


# The verb


def asked(models="arc-tiny", precisions="fp16", contexts="256", gpus="t4", **more):
    rest = dict.fromkeys(("recipe", "method", "micro_batch", "checkpointing", "budget_hours", "steps", "models_file"))
    rest |= {"split": "data", "trim_vocab": False} | more
    return outlook.read(models, precisions, contexts, gpus, **rest)


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


def test_a_single_cell_shows_what_fills_the_memory(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "arc-tiny", "--precision", "int4", "--context", "256"])
    shown = capsys.readouterr().out
    assert "quantisation constants" in shown and "context and allocator" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "t5"], "unknown accelerator 't5'"),
        (["--context", "4096"], "beyond arc-tiny's window of 2048"),
        (["--method", "lori"], "unknown method 'lori'; did you mean lora"),
        (["--recipe", "arc25"], "unknown recipe 'arc25'; did you mean arc24"),
        (["--split", "rows"], "unknown split"),
        (["--gpu", "0xt4"], "give one or more"),
        (["--gpu", ""], "names no accelerator"),
        (["--gpu", "t4 2xl4"], "different numbers of cards"),
        (["--micro-batch", "5"], "cannot be shared equally"),
        (["--gpu", "nowhere.yaml"], "cannot be read"),
        (["--precision", "fp16", "--gpu", "3xt4"], "cannot be shared equally"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "arc-tiny", *words])
    assert ended.value.code == 2
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1


def test_the_largest_context_and_batch_are_at_the_edge():
    """A card that holds 150 MiB besides its context: the found context fits for sure, and the next one does not."""
    question = asked("arc-tiny", "fp16", "256")
    on, calibration = question.cards[0]
    small = replace(on, memory_bytes=on.context_bytes + (150 << 20))
    question = replace(question, cards=[(small, calibration)])
    with Tracers(versions()) as tracers:
        (longest,) = outlook.largest(question, tracers)
        assert longest.fits_memory() is True and longest.context % 64 == 0
        (beyond,) = outlook.answer(replace(question, contexts=[longest.context + 64]), tracers)
        assert beyond.fits_memory() is not True
        (widest,) = outlook.largest(question, tracers, batch=True)
        assert widest.fits_memory() is True and 16 % widest.recipe.micro_batch == 0
        nothing = replace(small, memory_bytes=1 << 20)
        (none,) = outlook.largest(replace(question, cards=[(nothing, calibration)]), tracers)
        assert "not even 64 fit" in none.reason


def test_a_kept_trace_is_used_and_a_torn_one_made_again(monkeypatch, tmp_path):
    from harness.forecast import traces

    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    question = asked(contexts="64")
    with Tracers(versions()) as tracers:
        (first,) = outlook.answer(question, tracers)
        assert len(list(tmp_path.iterdir())) == 3
    with Tracers(versions()) as tracers:
        assert outlook.answer(question, tracers) == [first] and not tracers.processes
    torn = (
        traces.folder()
        / f"{predict.subject(first.spec, first.precision, first.recipe, first.on, 64).key(versions())}.json"
    )
    torn.write_text(torn.read_text()[:100])
    with Tracers(versions()) as tracers:
        assert outlook.answer(question, tracers) == [first] and tracers.processes


def test_what_cannot_be_traced_is_said():
    """Full fine-tuning of packed weights."""
    with Tracers(versions()) as tracers:
        (found,) = outlook.answer(asked(precisions="int4", method="full"), tracers)
    assert "not quantised" in found.reason


def test_the_shipped_calibrations_serve(tmp_path):
    t4 = known.for_card(accelerators.find("t4"), tmp_path)
    assert t4.points >= 6 and "published" in t4.source
    assert known.for_card(accelerators.find("l4"), tmp_path).points == 0
    here = accelerators.cpu("Some CPU, 2 threads", 8 << 30, {})
    assert "another CPU" in known.for_cpu(here, tmp_path)[1].source
    own = tmp_path / "some-cpu-2-threads"
    own.mkdir()
    calibrate.write(calibrate.fit("Some CPU, 2 threads", "cpu", points(TRUE), source="own"), own / known.NAME)
    assert known.for_cpu(here, tmp_path)[1].source == "own"


def test_calibrate_from_the_command_line(tmp_path, capsys):
    """A record of two rows that the conftest's cells make; without rows it is one line."""
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--results", str(tmp_path)])
    assert ended.value.code == 2 and "run `harness bench` first" in capsys.readouterr().err


def test_plan_predicts_its_cells_where_a_card_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "arc-tiny", "--contexts", "128 256"])
    assert "With --gpu" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plan", "arc-tiny", "--contexts", "128 256", "--gpu", "t4"])
    assert "PREDICTED, not measured" in capsys.readouterr().out
