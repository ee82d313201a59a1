import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np
import pytest
from helpers.records import result

from bench import choices
from bench import retraining as bench_retraining
from harness.analysis import retraining
from harness.analysis.comparison import against, chosen, compare, holm_adjusted, tasks_to_tell
from harness.analysis.retraining import NONE, RECORDED, Noise, first_seeds, noise_for, noise_of, pooled, repeats
from harness.analysis.stats import paired_p
from harness.report.comparison import p_value

ROOT = Path(__file__).parents[1]
NOISE = Noise(0.02, 0.05, 4)


def _arm(nats, right=0, arm="n-1", tokens=10, **changes):
    losses = tuple((value / tokens, tokens) for value in nats)
    return result(right, tasks=len(nats), arm=arm, answer_losses=losses, **changes)


def _pair(tasks=30, shift=-1.0, seed=0):
    rng = random.Random(seed)
    before = [rng.gauss(20, 5) for _ in range(tasks)]
    return _arm(before, 3, "baseline", steps=0), _arm([b + rng.gauss(shift, 0.5) for b in before], 6)


def test_a_loss_that_falls_on_every_task_is_told_where_solved_tasks_are_not():
    first, second = _pair()
    (c,) = against(first, [second], NONE)
    assert c.by_loss and not c.by_solved
    assert c.nats[0] < c.nats[1] < c.nats[2] < 0 and c.nats[1] == pytest.approx(-1, abs=0.3)
    assert c.nats_p < 0.001 and c.solved_p > 0.05
    assert c.told_apart and c.better and c.nats_tasks == 30
    (back,) = against(second, [first], NONE)
    assert back.told_apart and not back.better and back.nats[1] == pytest.approx(-c.nats[1])


def test_tasks_that_all_show_the_same_difference_are_not_certain_of_it():
    """Of 0 of 24 tasks that differ Wilson says up to z^2 / (24 + z^2) = 13.8 %: either arm may solve so many more."""
    none, same = _arm([2.0] * 24, arm="baseline", steps=0), _arm([1.0] * 24)
    assert compare(none, same, NONE).gain == pytest.approx((-0.138, 0, 0.138), abs=1e-3)
    assert compare(none, same, NOISE).gain[2] == pytest.approx(math.hypot(0.138, 1.96 * 0.02), abs=1e-3)
    low, middle, high = compare(none, _arm([1.0] * 24, 24), NONE).gain
    assert (middle, high) == (1.0, 1.0) and low == pytest.approx(0.862, abs=1e-3)


def test_no_difference_is_told_apart_in_one_of_twenty_at_most():
    told = 0
    for seed in range(60):
        first, second = _pair(shift=0.0, seed=seed)
        told += compare(first, replace(second, scores=first.scores), NONE).nats_p < 0.05
    assert told <= 8  # of 60, 3 are expected; 9 or more in one of 200 such experiments


def test_what_another_seed_changes_widens_the_interval_and_raises_p():
    first, second = _pair(shift=-0.3)
    plain, noisy = compare(first, second, NONE), compare(first, second, NOISE)
    assert noisy.nats[0] < plain.nats[0] and noisy.nats[2] > plain.nats[2] and noisy.nats[1] == plain.nats[1]
    assert noisy.nats_p > plain.nats_p and noisy.solved_p >= plain.solved_p
    # The untrained arm has no seed: one trained arm adds the noise once, two add it as two independent ones.
    both = compare(replace(first, step_losses=(1.0,)), second, NOISE)
    level = fmean([first.grid_nll, second.grid_nll])
    assert both.nats_p >= noisy.nats_p
    for c, times in ((noisy, 1), (both, 2)):
        added = math.hypot(plain.nats[1] - plain.nats[0], 1.959964 * NOISE.nats * level * math.sqrt(times))
        assert c.nats[1] - c.nats[0] == pytest.approx(added)


def test_holm_counts_every_p_of_the_table():
    first, second = _pair()
    other = _pair(shift=0.0, seed=3)[1]
    alone, two = against(first, [second], NONE), against(first, [second, other], NONE)
    assert alone[0].nats_holm == pytest.approx(2 * alone[0].nats_p)
    assert two[0].nats_holm == pytest.approx(4 * two[0].nats_p)
    assert holm_adjusted([]) == []


def test_only_tasks_whose_outputs_all_were_read_are_compared():
    first = _arm([1.0, 2.0, 3.0, 4.0], arm="baseline", steps=0)
    attempts = {"t0": (("1",),), "t1": (("1",), ("2",)), "t2": (("1",),), "t3": (("1",),)}
    # Of the second task one of two outputs was too long.
    second = replace(_arm([0.5, 1.0, 2.0, 3.5]), attempts=attempts, answer_counts=(1, 1, 1, 1))
    assert second.nats_by_task() == pytest.approx({"t0": 0.5, "t2": 2.0, "t3": 3.5})
    c = compare(first, second, NONE)
    assert c.nats_tasks == 3 and c.nats[1] == pytest.approx(fmean([-0.5, -1.0, -0.5]))
    assert c.levels == pytest.approx((fmean([1.0, 3.0, 4.0]), fmean([0.5, 2.0, 3.5])))
    assert second.grid_nll == pytest.approx(c.levels[1])  # one figure, in the arms' table and in the comparison's
    # Rows from before say nothing of which loss is whose, unless all are there.
    unknown = replace(second, answer_counts=())
    assert unknown.grid_nll == pytest.approx(fmean([0.5, 1.0, 2.0, 3.5]))
    assert unknown.nats_by_task() == {} and compare(first, unknown, NONE).nats is None
    whole = replace(unknown, answer_losses=(*second.answer_losses, (0.1, 10)))
    assert whole.nats_by_task() == pytest.approx({"t0": 0.5, "t1": 1.5, "t2": 3.5, "t3": 1.0})


def test_a_loss_that_is_no_number_is_not_compared():
    first = _arm([1.0, 2.0, 3.0], arm="baseline", steps=0)
    assert compare(first, _arm([float("nan"), 1.0, 2.0]), NONE).nats is None  # diverged on one task: on none
    assert compare(first, _arm([float("inf")] * 3), NONE).nats is None
    with pytest.raises(ValueError, match="same tasks"):
        compare(first, _arm([1.0, 2.0]), NONE)


def test_one_task_has_no_interval_of_its_loss():
    c = against(_arm([2.0], arm="baseline", steps=0), [_arm([1.0])], NOISE)[0]
    assert c.nats is None and c.nats_holm is None and c.solved_holm == 1.0 and not c.told_apart


def test_tasks_to_tell_has_the_power_that_it_promises():
    # 3 of 40 tasks gained and 1 lost; drawn again at the number that it names, 80 % are significant.
    first, second = [False] * 3 + [True] + [False] * 36, [True] * 3 + [False] * 37
    tasks = tasks_to_tell(first, second)
    rng, told = np.random.default_rng(0), 0
    for gained, lost, _ in rng.multinomial(tasks, (3 / 40, 1 / 40, 36 / 40), size=2000):
        z = (gained - lost) / math.sqrt(max(1, gained + lost))
        told += 2 * (1 - NormalDist().cdf(abs(z))) < 0.05
    assert 0.77 < told / 2000 < 0.83
    assert tasks_to_tell([True, False], [False, True]) is None and tasks_to_tell(first, first) is None


def test_the_interval_of_the_chosen_arm_holds_its_true_accuracy():
    kinds = choices.SETTINGS
    per_kind = 1000 // len(kinds) + 1
    pairs = [pair for i, kind in enumerate(kinds) for pair in choices.held(kind, per_kind, seed=i)]
    naive, corrected = np.mean(pairs, 0)
    assert len(pairs) >= 1000 and 0.93 <= corrected <= 0.97
    assert naive < 0.88  # as if nothing had been chosen


def test_one_candidate_alone_has_nothing_taken_off():
    low, middle, high = chosen([[1.0, 0.0, 0.0, 1.0]], 0)
    assert middle == pytest.approx(0.5, abs=1e-12) and low < 0.5 < high
    assert chosen([[1.0, 0.0, 0.0, 1.0]], 0, [0.2])[0] < low
    with pytest.raises(ValueError, match="same tasks"):
        chosen([[1.0], [1.0, 0.0]], 0)


def _repeated(seeds, common, own, tasks=60):
    """The same arm under several seeds: a shift of all tasks by each seed, and every task's own luck."""
    rng = random.Random(5)
    level = [rng.gauss(20, 4) for _ in range(tasks)]
    shifts = [rng.gauss(0, common) for _ in range(seeds)]
    return [_arm([n + shift + rng.gauss(0, own) for n in level], 9, seed=seed) for seed, shift in enumerate(shifts)]


def test_only_what_all_tasks_share_is_the_noise_of_retraining():
    lucky = pooled([_repeated(40, 0.0, 3.0)])
    assert lucky.nats < 0.01 and lucky.accuracy == 0.0
    shared = pooled([_repeated(40, 1.0, 3.0)])
    assert shared.nats == pytest.approx(1 / 20, rel=0.35) and (shared.own, shared.freedom) == (40, 39)
    with pytest.raises(ValueError, match="no repeats"):
        pooled([])


def test_repeats_differ_in_their_seed_alone():
    rows = _repeated(3, 1.0, 1.0)
    others = [replace(rows[0], arm="n-2"), _arm([1.0, 2.0], arm="baseline", steps=0), replace(rows[1], status="oom")]
    assert repeats([*rows, *others]) == [rows]
    assert repeats([rows[0], rows[0]]) == []  # one seed, run twice, is no repeat
    assert first_seeds([rows[2], *rows, *others]) == [rows[0], *others]


def test_few_own_repeats_are_joined_with_the_record_and_many_stand_alone(monkeypatch):
    monkeypatch.setattr(retraining, "RECORDED", {"shared": (0.02, 0.04, 12, 10), "task": (0.01, 0.03, 4, 3)})
    rows, spec = _repeated(3, 0.0, 1.0), _repeated(3, 0.0, 1.0)[0].spec
    few = noise_for(rows, spec)
    own = pooled([rows])
    assert few.nats == pytest.approx(math.sqrt((2 * own.nats**2 + 10 * 0.04**2) / 12)) and few.freedom == 12
    assert "3 trainings here and 12 of arc-tiny in this project's record" in few.sentence
    many = _repeated(10, 1.0, 1.0)
    assert noise_for(many, spec) == pooled([many]) and "10 trainings here:" in noise_for(many, spec).sentence
    # Of another scope or model they say nothing.
    assert noise_for(many, replace(spec, scope="task")).own == 0
    assert noise_for(many, replace(spec, model=replace(spec.model, name="other"))).accuracy == 0.02
    assert "from 12 of arc-tiny in this project's record:" in noise_for([], spec).sentence


def test_noise_never_makes_a_clear_gain_a_chance_nor_p_smaller():
    """Every task is 6.6 nats better, 120 of them; seeds change 2 % of 20 nats."""
    first, second = _pair(120, shift=-6.6)
    plain, noisy = compare(first, second, NONE), compare(first, second, Noise(0.01, 0.02, 4))
    assert plain.nats_p <= noisy.nats_p < 0.001 and noisy.nats[2] < 0
    # Many tasks that one arm alone solves, all one way: the smallest p there are.
    none, all_of_them = (result(n, tasks=400, arm=str(n), answer_losses=()) for n in (0, 200))
    assert 0 < compare(none, all_of_them, Noise(0.01, 0.01, 4)).solved_p < 1e-9
    # All tasks differ alike: seeds are all that is uncertain.
    alike = compare(_arm([2.0] * 9, arm="baseline", steps=0), _arm([1.0] * 9), Noise(0.0, 0.5, 4))
    assert alike.nats[0] < -1 < alike.nats[2] and alike.nats_p > 0.05


def test_a_permutation_p_is_that_of_all_signs():
    # Of five gains alike all 32 signs are tried in mind: two of them are as extreme.
    assert paired_p([0.0] * 5, [1.0] * 5) == 2 / 32
    assert paired_p([0.0] * 5, [0.0] * 5) == 1.0


def test_the_recorded_noise_is_that_of_the_reference_record():
    groups = bench_retraining.read(ROOT / bench_retraining.FILE)
    assert sorted(groups) == sorted(RECORDED) and max(len(group) for group in groups["shared"]) >= 10
    for scope, arms in groups.items():
        noise = noise_of(arms)
        recorded = noise.accuracy, noise.nats, noise.own, noise.freedom
        assert recorded == pytest.approx(RECORDED[scope], abs=5e-5)


def test_a_p_that_is_no_number_is_none_and_not_a_small_one():
    assert [p_value(p) for p in (None, math.nan, 0.0, 0.0005, 0.04)] == ["-", "-", "<.001", "<.001", "0.04"]
