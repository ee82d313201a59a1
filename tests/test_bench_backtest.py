"""The published error of the predictions is the one that this code makes, on the rows that are committed."""

import copy
import dataclasses
import json
import math
import re
from statistics import fmean, median

import pytest
from helpers.records import row

from bench import backtest, backtest_tables, fit_priors, published_steps, reference_rows
from bench.kept_traces import KeptTraces
from bench.published_steps import CLASSES
from bench.reference_rows import REFERENCE
from harness.predict import calibration, roofline, tracer
from harness.predict.roofline import BANDWIDTH, DEQUANTIZE, GEMM, Trace
from harness.records.stored import from_stored, to_stored

MEASURED = REFERENCE / "amd-epyc-zen5-2-threads"


@pytest.fixture(scope="module")
def kept():
    return KeptTraces()


@pytest.fixture(scope="module")
def published(kept):
    return backtest.published(kept)


def errors(rows, unit):
    return [row.error for row in rows if row.unit == unit]


def test_of_several_sweeps_each_cells_middle_row_counts():
    sweeps = [[row(micro_s=(s, s, 9.0), key="a"), row(micro_s=(1 / s,) * 3, key="b")] for s in (1.0, 3.0, 2.0)]
    sweeps[0].append(row(status="oom", key="c"))
    assert [(r.key, r.micro_s[0]) for r in reference_rows.middle(sweeps)] == [("a", 2.0), ("b", 1 / 2)]
    assert [r.micro_s[0] for r in reference_rows.middle(sweeps[:2])] == [1.0, 1 / 3]  # of two the lower
    assert reference_rows.middle([]) == []


def test_arcs_rows_are_met(kept):
    """Within their own rounding (half a minute for those of ten steps) plus a quarter, each with its model left out,
    and on the right side of 12 h; and the calibration that comes with the program is the fit on them."""
    rows, fitted = reference_rows.arc24(kept)
    assert len(rows) == 8
    for one in rows:
        rounding = 0.5 if one.name.endswith("10 steps") else 0.15
        assert (one.real - rounding) * 0.75 <= one.predicted <= (one.real + rounding) * 1.25, one.name
        assert (one.real * 100 / 60 > 12) == (one.predicted * 100 / 60 > 12), one.name
    shipped = calibration.load_calibration(backtest.CALIBRATIONS / "t4.json")
    assert shipped.slowdown == pytest.approx(fitted.slowdown, rel=0.02)


def test_own_measurements_are_met_and_the_table_says_so(kept):
    """Seconds within 8 % in the median and 20 % at worst, memory within 3 and 10 %."""
    rows, fitted = reference_rows.measured(MEASURED, kept)
    seconds, memory = ([abs(e) for e in errors(rows, unit)] for unit in ("s", "GiB"))
    assert len(seconds) == len(memory) == 36
    assert median(seconds) <= 0.08 and max(seconds) <= 0.20
    assert median(memory) <= 0.03 and max(memory) <= 0.10
    table = (REFERENCE / "backtest.md").read_text()
    written = re.search(r"^s: 36 rows, median error ([0-9.]+) %", table, re.MULTILINE)
    assert float(written[1]) == pytest.approx(100 * median(seconds), abs=0.3)
    shipped = calibration.load_calibration(backtest.CALIBRATIONS / "cpu.json")
    assert shipped.slowdown == pytest.approx(fitted.slowdown, rel=0.02) and shipped.device == fitted.device


def test_published_steps_are_met_with_their_card_left_out(published):
    """Exact and near rows: seconds within 12 % in the median and 35 % at the 90th percentile, memory within 6 %."""
    rows = [one for one in published[0] if one.group != "rough"]
    seconds, memory = (sorted(map(abs, errors(rows, unit))) for unit in ("s", "GiB"))
    assert (len(seconds), len(memory)) == (67, 76)
    assert median(seconds) <= 0.12 and seconds[int(0.9 * len(seconds))] <= 0.35
    assert median(memory) <= 0.06
    assert {one.evidence for one in rows} == {calibration.FITTED}


def test_what_is_known_roughly_is_said_to_be_predicted_too_low(published):
    table, readme = ((REFERENCE / "backtest.md").read_text(), (REFERENCE.parents[1] / "README.md").read_text())
    for unit in ("s", "GiB"):
        assert backtest_tables.lean(published[0], unit) in table
    assert (
        backtest_tables.lean(published[0], "s")
        == "Of 16 rough rows (s) 15 were predicted too low; the interval held 14."
    )
    assert "15 of 16 times too fast" in readme


def test_launches_cost_as_much_on_machines_that_were_left_out(kept):
    """Steps that wait for the interpreter, in bf16, in bitsandbytes' 4 bits and in GPTQ's: those of an A100 without
    their source, this project's on an H100 without theirs. Before they were 10 % too slow and 28 % too fast in the
    mean, the H100's in 4 bits up to 43 %."""
    rows = published_steps.read()
    steps = fit_priors.steps(rows, published_steps.traces(rows, kept), kept)
    fits = fit_priors.left_out(steps, lambda step: step.source)
    for source, each, mean in (("QwenLM/Qwen README, profiling", 0.15, 0.05), ("own", 0.30, 0.15)):
        bound = [step for step in steps if step.source == source
                 and roofline.host_share(step.point.nominal, fits[source]) > 0.5]  # fmt: skip
        assert len(bound) >= 6
        misses = [math.log(step.point.seconds / roofline.seconds(step.point.nominal, fits[source])) for step in bound]
        assert max(map(abs, misses)) < each and abs(fmean(misses)) < mean, source


def test_rows_are_traced_with_the_products_that_their_models_have(kept):
    """Qwen's first models have five products per layer: between those of seven and of four. AutoGPTQ unpacks in nine
    operations, in the forward and when it is made again."""
    rows = {row.name: row for row in published_steps.read()}
    lora, packed = rows["G2-qwen-1.8b-lora-256"], rows["G2-qwen-1.8b-qlora-256"]
    (seven,) = kept.trace_all([lora.trace_key])
    made = published_steps.traces([lora, packed], kept)
    frozen = 24 * 3  # per product of a layer: forward, made again, and backward; the head has two
    counts = [sum(op.count for op in trace.ops if op.kind == GEMM) - 2 for trace in (seven, made[lora.name])]
    assert counts[0] == 7 * frozen and counts[1] == pytest.approx(5 * frozen, abs=3)
    assert made[lora.name].memory == seven.memory
    unpacked = sum(op.count for op in made[packed.name].ops if op.kind == DEQUANTIZE)
    beside = sum(op.count for op in made[packed.name].ops if op.kind == BANDWIDTH and not op.bytes)
    assert unpacked == pytest.approx(24 * 2 * 5, abs=3) and beside == 8 * unpacked


def test_rough_rows_are_better_than_before_what_their_programs_do_was_known(published):
    """Medians of 41 % and 19 % before, all but two of 57 too low: now what torch's default allocator reserves is off to
    both sides, ZeRO-3's seconds by little, and intervals hold nine of ten."""
    rough = [one for one in published[0] if one.group == "rough"]
    for unit, limit in (("s", 0.30), ("GiB", 0.15)):
        of_unit = [one for one in rough if one.unit == unit]
        assert median(abs(one.error) for one in of_unit) < limit
        assert sum(one.held for one in of_unit) >= 0.85 * len(of_unit)
    zero3 = [one.error for one in rough if "-full-" in one.name and one.name.startswith("G2") and one.unit == "s"]
    swift = [one.error for one in rough if one.name.startswith("G6-swift")]
    assert len(zero3) == 4 and max(map(abs, zero3)) < 0.15
    assert len(swift) == 20 and 5 <= sum(error < 0 for error in swift) <= 15 and median(map(abs, swift)) < 0.1


def test_assumed_lengths_are_as_uncertain_as_the_other_sources_rows_are_wrong(published):
    steps = {step.source: step for step in published_steps.read() if step.lengths_assumed and step.seconds}
    assert len(steps) == 2
    (one, first), (other, second) = steps.items()
    by_source = {one: 0.3, other: 0.4}
    assert backtest.lengths_log_sigma(first, by_source) == pytest.approx(0.4)
    assert backtest.lengths_log_sigma(second, by_source) == pytest.approx(0.3)
    known = next(step for step in published_steps.read() if not step.lengths_assumed)
    assert backtest.lengths_log_sigma(known, by_source) == 0
    # A user's own table is of neither.
    mine = dataclasses.replace(first, source="mine")
    assert backtest.lengths_log_sigma(mine, by_source) == pytest.approx(math.sqrt(0.125))


def test_intervals_hold_what_they_say(published):
    """95 % intervals hold 90 to 99 % of the exact and near rows, whose card was left out."""
    for unit in ("s", "GiB"):
        held = [one.held for one in published[0] if one.unit == unit and one.group != "rough"]
        assert 0.90 <= sum(held) / len(held) <= 0.99, unit


def test_predictions_beat_the_one_line_rule_on_every_card(published):
    rows = [one for one in published[0] if one.unit == "s" and one.group != "rough"]
    for card in {one.card for one in rows}:
        of_card = [one for one in rows if one.card == card]
        ours, rule = (median(values) for values in ([abs(one.error) for one in of_card],
                                                    [abs(one.rule / one.real - 1) for one in of_card]))  # fmt: skip
        assert ours < rule, card


def test_the_gate_passes_on_what_is_committed_and_needs_no_trace(kept):
    _, now, _ = backtest.run(kept)
    assert backtest.failures(now, json.loads(backtest.FIGURES.read_text())) == []
    assert kept.made == 0


def test_the_gate_fails_on_what_is_worse():
    committed = {"classes": {"a, s": {"rows": 9, "mean_error": 0.1}}, "foreseen": {"fits": "right", "missed": "unsure"}}
    assert backtest.failures(committed, committed) == []
    worse = copy.deepcopy(committed)
    worse["classes"]["a, s"] = {"rows": 8, "mean_error": 0.107}
    worse["foreseen"]["fits"] = "unsure"
    reasons = backtest.failures(worse, committed)
    assert reasons == [
        "a, s: the mean error rose from 10.0 to 10.7 %",
        "a, s: 1 rows are no longer predicted",
        "fits: whether it fits was foreseen right, and is unsure now",
    ]
    # Up to a twentieth more is noise; a class that is gone is not.
    worse["classes"]["a, s"] = {"rows": 9, "mean_error": 0.105}
    worse["foreseen"] = {"fits": "right", "missed": "right"}
    assert backtest.failures(worse, committed) == []
    assert backtest.failures({"classes": {}, "foreseen": worse["foreseen"]}, committed) == ["a, s: no longer predicted"]


def test_the_gate_fails_on_what_is_no_number():
    committed = {"classes": {"a, s": {"rows": 9, "mean_error": 0.1}}, "foreseen": {}}
    broken = {"classes": {"a, s": {"rows": 9, "mean_error": math.nan}}, "foreseen": {}}
    assert len(backtest.failures(broken, committed)) == 1


def test_an_interval_that_spans_the_memory_foresees_nothing(published):
    """So that no interval, however wide, makes the gate pass."""
    words = {(fits, oom): backtest.foresight(fits, oom) for fits in (True, None, False) for oom in (True, False)}
    assert words[True, False] == words[False, True] == "right"
    assert words[True, True] == words[False, False] == "wrong"
    assert words[None, True] == words[None, False] == "unsure"
    assert list(published[1].values()).count("right") >= 9 and "wrong" not in published[1].values()


def test_a_kept_trace_is_what_is_traced_now(kept):
    """The smallest published model, so that kept traces that no longer are this code's are seen."""
    step = next(one for one in published_steps.read() if one.spec.name == "gemma-3-270m")
    (trace,) = kept.trace_all([step.trace_key])
    now = from_stored(tracer.trace_job(to_stored(step.trace_key), lambda **_: None), Trace)
    assert now.flops == pytest.approx(trace.flops, rel=0.02)
    assert now.memory.total == pytest.approx(trace.memory.total, rel=0.05)


def test_a_table_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "rows.csv"
    models = published_steps.PUBLISHED / "models.json"
    steps = (published_steps.PUBLISHED / "steps.csv").read_text().splitlines()
    for content in (None, "", "id,model\nx,y\n", "\n".join(steps[:1]), steps[0] + "\n" + "x," * 40):
        if content is not None:
            path.write_text(content)
        with pytest.raises(SystemExit, match=r"steps\.csv, and a shape per model in --models") as ended:
            published_steps.of_user(path, models)
        assert "\n" not in str(ended.value)
    path.write_text("\n".join(steps[:3]))
    assert len(published_steps.of_user(path, models)) == 2


def test_rows_say_where_they_are_from():
    for step in published_steps.read():
        assert (
            step.source and step.comparable in CLASSES and (step.seconds or step.gib or step.out_of_memory is not None)
        )
