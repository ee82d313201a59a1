"""How a record stands against an earlier one: what is matched, ratios with intervals, and the gate, by simulation."""

import math
from dataclasses import replace

import pytest
from helpers.records import cell, result, row

from bench.gate_repeats import report, share_failed
from harness.analysis import matching
from harness.analysis.change import ACCURACY, MEMORY, NATS, SECONDS, changes, overall
from harness.analysis.drift import CPU, DRIFT
from harness.analysis.gate import Limits
from harness.records.cell import Recipe
from harness.records.measurement import CROWDED
from harness.records.store import Store


def of(before, after, **more):
    """The changes between measurements."""
    return changes((before, []), (after, []), **more)


def one(listed, what):
    (change,) = [change for change in listed if change.what == what]
    return change


# ---- Matching


def test_cells_are_matched_by_what_was_requested():
    same = row(cell=cell(), versions={"torch": "1"}), row(cell=cell(), versions={"torch": "2"})
    assert matching.cells([same[0]], [same[1]]).pairs == [same]
    for other in (
        {"context": 512},
        {"precision": "bf16"},
        {"weights": "/somewhere"},
        {"recipe": replace(Recipe(), lora_r=8)},
        {"model": replace(cell().model, architecture={"hidden_size": 1})},
    ):
        found = matching.cells([row()], [row(cell=cell(**other))])
        assert not found.pairs and not found.other_devices
        assert len(found.only_before) == len(found.only_after) == 1


def test_a_smaller_micro_batch_for_want_of_memory_is_the_same_cell():
    recipe = replace(Recipe(), micro_batch=8)
    smaller = row(cell=cell(recipe=replace(recipe, micro_batch=4)), requested_micro_batch=8)
    assert len(matching.cells([row(cell=cell(recipe=recipe))], [smaller]).pairs) == 1


def test_another_device_is_never_joined_with_the_same_one():
    """The cell of both records is a pair; the one that moved to another device is apart, and all are there once."""
    on_b = [row(cell=cell(device_name="B", context=context)) for context in (1024, 512)]
    found = matching.cells([row(), row(cell=cell(context=512))], [row(), *on_b])
    assert len(found.pairs) == 1 and found.other_devices[0][1] is on_b[1]
    assert found.only_after == [on_b[0]] and not found.only_before


def test_the_newest_of_several_rows_counts():
    rows = [row((seconds,) * 12) for seconds in (1.0, 2.0)]
    assert matching.cells(rows, rows).pairs == [(rows[1], rows[1])]


def test_arms_are_matched_whatever_kernels_ran_and_baselines_whatever_was_trained():
    quick = replace(Recipe(), micro_batch=4, kernels="attention=sdpa")
    assert len(matching.arms([result(3)], [result(4, recipe=quick)]).pairs) == 1
    assert not matching.arms([result(3)], [result(4, seed=1)]).pairs
    assert not matching.arms([result(3)], [result(4, tasks=9)]).pairs
    baselines = [result(3, arm="baseline", steps=steps) for steps in (0, 64)]
    assert len(matching.arms(baselines[:1], baselines[1:]).pairs) == 1


# ---- Ratios


def test_the_ratio_of_seconds_by_hand():
    """12 equal micro-steps have no sampling error: the half width is 1.96 x sqrt(2) x 4.5 % of the logarithm."""
    found = of([row((1.0,) * 12)], [row((1.25,) * 12)])
    change = one(found.same_device, SECONDS)
    assert (change.before, change.after, change.middle) == (16.0, 20.0, 1.25)
    wide = math.exp(1.96 * math.sqrt(2) * DRIFT[CPU])
    assert change.low == pytest.approx(1.25 / wide, rel=1e-3) and change.high == pytest.approx(1.25 * wide, rel=1e-3)
    assert one(found.same_device, MEMORY).middle == 1.0


def test_over_cells_sampling_errors_average_out_and_drift_does_not():
    noisy = (0.8, 1.2, 0.9, 1.1, 1.0, 1.15, 0.85, 1.05, 0.95, 1.0, 0.8, 1.2)
    contexts = range(100, 116)
    before, after = ([row(noisy, cell=cell(context=context)) for context in contexts] for _ in "ab")
    single = one(of(before[:1], after[:1]).same_device, SECONDS)
    joined = overall(of(before, after).same_device, SECONDS)
    drift = 1.96 * math.sqrt(2) * DRIFT[CPU]
    sampling = math.sqrt((1.96 * single.deviation) ** 2 - drift**2)
    assert joined.cells == 16 and joined.middle == 1.0
    assert math.log(joined.high) == pytest.approx(math.hypot(drift, sampling / 4), rel=1e-3)


def test_what_was_timed_beside_others_is_in_no_overall_result_and_not_judged():
    found = of([row()], [row((9.0,) * 12, notes=(CROWDED,))])
    assert overall(found.same_device, SECONDS) is None
    assert not Limits().exceeded(one(found.same_device, SECONDS))


def test_one_sample_has_no_interval_and_is_counted():
    found = of([row((1.0,))], [row()])
    assert len(found.untimed) == 1 and [change.what for change in found.same_device] == [MEMORY]


@pytest.mark.parametrize("times", [2e6, 1e9, 5e-324])
def test_however_many_times_slower_is_compared_and_fails_the_gate(times):
    """Samples that agree have an interval; what is far beyond every other change is no less of one."""
    found = of([row()], [row((times,) * 12)])
    change = one(found.same_device, SECONDS)
    assert not found.untimed and 0 < change.low < change.middle < change.high < math.inf
    assert Limits().exceeded(change) == (times > 1)


def test_arms_have_their_losses_and_tasks_compared():
    """0.5 nats per token over 12 tokens are 6 per grid; 0.8 are 60 % more, beyond what seeds do. Solved: 8, then 2 of
    10."""
    found = changes(([], [result(8)]), ([], [result(2, answer_losses=((0.8, 12),) * 10)]))
    nats, solved = (one(found.same_device, what) for what in (NATS, ACCURACY))
    assert nats.before == pytest.approx(6.0) and nats.middle == pytest.approx(1.6)
    assert solved.middle == pytest.approx(-0.6) and solved.low < -0.6 < solved.high
    assert Limits().exceeded(nats)
    assert solved.worse == pytest.approx(0.6)


def test_what_fails_now_is_said():
    broken = row(status="oom", reason="memory ran out")
    found = of([row()], [broken])
    assert [b for _, b in found.failed] == [broken] and not found.same_device
    assert len(of([broken], [row()]).mended) == 1


# ---- The gate


def test_the_gate_by_hand():
    """On a CPU 3 x sqrt(2) x 4.5 % are 21 %, with the interval's 13 % worsenings from 37 % are seen."""

    def exceeded(ratio, **limits):
        change = one(of([row()], [row((ratio,) * 12)]).same_device, SECONDS)
        return Limits(**limits).exceeded(change)

    limits = Limits()
    change = one(of([row()], [row()]).same_device, SECONDS)
    assert limits.share(change) == pytest.approx(0.2104, abs=1e-3)
    assert limits.smallest(change) == pytest.approx(0.371, abs=1e-3)
    assert exceeded(1.38) and not exceeded(1.36)
    assert not exceeded(0.5)
    assert not exceeded(1.38, tolerance=0.5) and exceeded(1.75, tolerance=0.5)
    assert exceeded(1.20, deviations=0)


def test_repeats_pass_only_where_there_are_two_to_compare(tmp_path):
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, seconds in zip(folders, (1.0, 1.01, 3.0), strict=True):
        Store(folder).add(row((seconds,) * 12))
    assert report(folders[:2])
    assert not report(folders) and not report(folders[:1])


def test_a_machine_that_is_known_to_be_steady_has_its_own_drift():
    """With 1 % between two runs the tolerance of 5 % and 1.96 x 1 % must be exceeded: 7.1 %."""
    for ratio, seen in ((1.075, True), (1.065, False)):
        change = one(of([row()], [row((ratio,) * 12)], own_drift=0.01).same_device, SECONDS)
        assert Limits().exceeded(change) is seen


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_two_runs_of_one_machine_pass_at_least_99_times_of_100(device, common):
    assert share_failed(200, device, common) <= 0.01


@pytest.mark.parametrize(("device", "slower"), [("cuda", 1.2), ("cpu", 1.5)])
def test_a_slowdown_is_caught(device, slower):
    """Of 20 % on a steady card; on a CPU whose runs differ by 6 % that is within its drift, but 50 % are not."""
    assert share_failed(100, device, False, slower) >= 0.97
