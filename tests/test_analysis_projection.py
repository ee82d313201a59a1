import math
import random
from dataclasses import replace

import pytest
from helpers.records import cell, row

from harness.analysis import projection, token_curve
from harness.analysis.budget import TRAINING_SHARE, WHOLE_SHARE, fits
from harness.analysis.drift import CPU, DRIFT, STEADY, UNSTEADY
from harness.analysis.stability import warnings
from harness.arc.lengths import PUBLISHED
from harness.records.cell import Recipe
from harness.records.measurement import CardState, FlopCount
from harness.report import speed


def test_projection_by_hand():
    """16 micro-steps of 1 s and an update of 2 s make a step of 18 s: 1000 steps are 18000 s, 5 h. With 30 s of load
    and 6 s of warm-up: 5.01 h."""
    r = row(load_s=30.0, optimizer_s=(2.0,), warmup_micro_s=(5.0,), warmup_optimizer_s=(1.0,))
    p = projection.project(r)
    assert p.step_s == 18.0
    assert p.hours_mid == pytest.approx(5.01)
    # Samples without any spread leave the drift of the machine: 1.96 x 4.5 %.
    assert p.hours_low == pytest.approx(0.01 + 5 * (1 - 1.96 * DRIFT[CPU]))
    assert p.hours_high == pytest.approx(0.01 + 5 * (1 + 1.96 * DRIFT[CPU]))


def test_a_larger_micro_batch_makes_fewer_micro_steps():
    r = row(cell=cell(recipe=Recipe(micro_batch=4)))
    assert projection.step_seconds(r) == 4.0
    assert projection.tokens_per_second(r) == 16 * 1024 / 4.0


def test_a_failure_has_no_projection():
    with pytest.raises(ValueError, match="oom"):
        projection.project(row(status="oom"))


def test_three_noisy_samples_leave_a_wide_interval():
    few, many = row((1.0, 1.1, 0.9)), row((1.0, 1.1, 0.9) * 10)
    assert projection.relative_half_width(few) > 0.2
    assert projection.relative_half_width(many) < math.hypot(0.054, 1.96 * DRIFT[CPU])


def test_flops_and_share_of_peak_by_hand():
    """Work of 2e9 n + 3e5 n^2 at n = 1024: 2.048e12 + 0.3146e12 = 2.3626e12 in 1 s; the probe gave 60e9."""
    r = row()
    assert projection.achieved_flops(r) == pytest.approx(2.3626e12, rel=1e-4)
    assert projection.share_of_peak(r) == pytest.approx(2.3626e12 / 60e9, rel=1e-4)


def _noisy(spread):
    rng = random.Random(2)
    return tuple(rng.gauss(1, spread) for _ in range(40))


@pytest.mark.parametrize(
    ("samples", "advice"),
    [
        ((1.0,) * 3, "from 3 samples"),
        ((1.0,) * 10 + (2.0,) * 10, "two speeds"),
        (tuple(1 + 0.01 * i for i in range(40)), "slower while sampling"),
        ((1.0,) * 30 + (3.0,), "3.0 times the median"),
        (_noisy(0.15), "vary by"),
    ],
)
def test_warnings_say_what_to_do(samples, advice):
    messages = [w for w in warnings(row(samples)) if advice in w]
    assert len(messages) == 1
    assert any(remedy in messages[0] for remedy in ("--sample-seconds", "--fresh", "close what else"))


def test_a_clean_sample_has_no_warning():
    assert warnings(row(_noisy(0.01))) == []


def _measured(seconds, context):
    return row((seconds,) * 12, cell=cell(context=context))


def test_fit_finds_the_curve_again():
    """Fixed 0.1 s, 1e-12 s a linear FLOP, 4e-12 s a FLOP of attention."""
    work = FlopCount(1e9, 1e5, 1e9, 2e5)

    def true(n):
        return 0.1 + 1e-12 * 2e9 * n + 4e-12 * 3e5 * n**2

    rows = [_measured(true(n), n) for n in (256, 512, 1024, 2048)]
    fitted = token_curve.fit_token_curve(rows)
    assert fitted.work == work
    for n in (100, 700, 4096):
        assert fitted.seconds(n) == pytest.approx(true(n), rel=1e-6)
    assert fitted.error < 1e-6
    two = token_curve.fit_token_curve([_measured(0.1 + 1e-12 * (2e9 * n + 3e5 * n**2), n) for n in (256, 512)])
    assert two.seconds(1024) == pytest.approx(0.1 + 1e-12 * (2e9 * 1024 + 3e5 * 1024**2), rel=1e-6)
    assert token_curve.fit_token_curve(rows[:1]).seconds(256) == pytest.approx(true(256))
    assert token_curve.fit_token_curve([row(status="oom")]) is None


def test_contexts_of_a_card_share_a_curve_whatever_their_micro_batches():
    """A launch costs once per micro-step; what a sequence costs beside it does not depend on the micro-batch."""

    def micro_s(n, batch):
        return 0.08 + batch * (1e-12 * 2e9 * n + 4e-12 * 3e5 * n**2)

    def of_card(n, batch, device="cuda:0"):
        measured = _measured(micro_s(n, batch), n)
        recipe = replace(measured.cell.recipe, micro_batch=batch)
        return replace(measured, cell=replace(measured.cell, recipe=recipe, device=device))

    rows = [of_card(512, 16), of_card(1024, 16), of_card(2048, 8), of_card(4096, 2)]
    (fitted,) = token_curve.fit_curves(rows).values()
    assert fitted.error < 1e-6
    assert fitted.seconds(3000, batch=2) == pytest.approx(micro_s(3000, 2) / 2, rel=1e-6)
    # A step of 16 sequences in eight micro-steps.
    hours = token_curve.arc_hours(fitted, rows[-1], 4096, 1000)
    moments = PUBLISHED.moments(4096)
    step_s = 16 * fitted.seconds(*moments, batch=2)
    assert hours.hours_mid == pytest.approx(projection.fixed_seconds(rows[-1]) / 3600 + 1000 * step_s / 3600, rel=1e-3)
    # As many tokens in every micro-step: it still grows with the tokens.
    (even,) = token_curve.fit_curves([of_card(512, 8), of_card(1024, 4), of_card(2048, 2)]).values()
    assert even.seconds(4096, batch=1) > 1.9 * even.seconds(2048, batch=1)
    # On a CPU a larger micro-batch is asked for, and is another way to train.
    assert len(token_curve.fit_curves([of_card(512, 2, "cpu"), of_card(512, 4, "cpu")])) == 2


def test_fit_has_no_negative_part():
    """Seconds that fall with length, as noise can make them, still give a curve that rises."""
    fitted = token_curve.fit_token_curve([_measured(1.2, 256), _measured(1.0, 512), _measured(1.1, 1024)])
    assert min(fitted.fixed_s, fitted.linear_s, fitted.quadratic_s) >= 0
    assert fitted.seconds(4096) >= fitted.seconds(256) > 0


def test_arc_hours_by_hand():
    """Seconds in proportion to tokens, a millisecond each: the mean sequence under 8192 is 1788 tokens in our table,
    16 of them 28.6 s, a thousand steps 7.95 h."""
    rows = [replace(_measured(n / 1000, n), work=FlopCount(1e9, 0, 1e9, 0)) for n in (512, 1024, 4096)]
    hours = token_curve.arc_hours(token_curve.fit_token_curve(rows), rows[-1], 8192, 1000)
    assert hours.hours_mid == pytest.approx(7.95, rel=0.01)
    assert hours.coverage == 1.0
    assert hours.reach == 2.0
    near = token_curve.arc_hours(token_curve.fit_token_curve(rows), rows[-1], 4096, 1000)
    assert (near.hours_high - near.hours_low) / near.hours_mid < (hours.hours_high - hours.hours_low) / hours.hours_mid
    assert token_curve.arc_hours(token_curve.fit_token_curve(rows), rows[-1], 300, 1000) is None


@pytest.mark.parametrize(
    ("precision", "device", "contexts", "batch", "projected"),
    [
        ("int4", "cuda:0", (512, 1024), 1, False),
        ("int4", "cuda:0", (1024, 2048), 1, True),  # a point above the border
        ("int4", "cuda:0", (512, 1024), 2, True),  # 2048 tokens of a micro-batch
        ("int4", "cpu", (512, 1024), 1, True),
        ("fp16", "cuda:0", (512, 1024), 1, True),
        ("int8", "cuda:0", (512, 1024), 1, True),
    ],
)
def test_four_bits_are_not_projected_into_another_kernel(precision, device, contexts, batch, projected):
    """Over 1536 tokens of a micro-batch bitsandbytes multiplies otherwise than below, on a card."""
    like = cell(precision=precision, compute_dtype="fp16", device=device, recipe=Recipe(micro_batch=batch))
    rows = [replace(_measured(n / 1000, n), cell=replace(like, context=n)) for n in contexts]
    curve = token_curve.fit_token_curve(rows)
    assert (token_curve.arc_hours(curve, rows[-1], 4096, 1000) is not None) == projected
    assert token_curve.arc_hours(curve, rows[-1], contexts[-1], 1000)
    projected_lines, unreached = speed.curves(rows, 1000)
    said = " ".join([*projected_lines, *unreached])
    assert ("up to 2048 tokens" in said) == projected == ("not projected beyond 1536 tokens" not in said)


def test_arc_hours_share_a_step_between_processes():
    """Two processes make eight of the sixteen micro-steps each, over ARC's lengths as at full contexts."""
    one, two = row(), row(cell=cell(recipe=Recipe(data_parallel=2)))
    hours = [token_curve.arc_hours(token_curve.fit_token_curve([r]), r, 1024, 1000) for r in (one, two)]
    assert hours[0].hours_mid == pytest.approx(2 * hours[1].hours_mid, rel=1e-3)


def test_what_fits_by_hand():
    assert fits(9.6, 12, TRAINING_SHARE) and not fits(9.61, 12, TRAINING_SHARE)
    assert fits(12.0, 12, WHOLE_SHARE) and not fits(12.01, 12, WHOLE_SHARE)


def _on_card(before=1590.0, after=1590.0, throttle=(), **more):
    states = (CardState(before, 70.0, 60.0), CardState(after, 71.0, 60.0, throttle))
    return row(cell=cell(device="cuda:0"), card=states, **more)


@pytest.mark.parametrize(
    ("measured", "kind", "advice"),
    [
        (row(), CPU, None),
        (_on_card(), STEADY, None),
        (_on_card(after=1560.0, throttle=("power cap",)), STEADY, None),
        (_on_card(after=1500.0), UNSTEADY, "clock moved by -6 % while sampling, from 1590 to 1500 MHz at 70 and 71 C"),
        (_on_card(throttle=("heat",)), UNSTEADY, "heat holds the card's clock down"),
        (row(cell=cell(device="cuda:0")), UNSTEADY, None),  # it told nothing
    ],
)
def test_the_drift_is_the_device_s(measured, kind, advice):
    assert projection.relative_half_width(measured) == pytest.approx(1.96 * DRIFT[kind])
    told = [line for line in warnings(measured) if "card" in line]
    assert len(told) == bool(advice) and (not advice or advice in told[0])


def test_noisy_updates_widen_the_interval():
    """Micro-steps of 16 s in all without spread, updates of 4 s +- 1 s: the interval of the mean update over 20 s."""
    updates = (3.0, 5.0) * 8
    noisy, calm = row(optimizer_s=updates), row(optimizer_s=(4.0,) * 16)
    own = projection.sampling_half_width(updates)
    assert projection.relative_half_width(calm) == pytest.approx(1.96 * DRIFT[CPU])
    assert projection.relative_half_width(noisy) == pytest.approx(math.hypot(own * 4 / 20, 1.96 * DRIFT[CPU]))


def test_hours_over_arc_s_lengths_start_from_steps_that_were_timed():
    """Whole steps took 6 s: 1000 of them are 1.67 h, and at another context the curve is scaled by as much."""
    plain, timed = row(), row(arc_step_s=(5.9, 6.0, 6.1), arc_step_tokens=(9000,) * 3)
    curve = token_curve.fit_token_curve([plain])
    by_curve, own = (token_curve.arc_hours(curve, r, 1024, 1000) for r in (plain, timed))
    fixed = projection.project(timed).fixed_h
    assert own.hours_mid == pytest.approx(fixed + 6000 / 3600)
    half = math.hypot(projection.sampling_half_width((5.9, 6.0, 6.1)), 1.96 * DRIFT[CPU])
    assert own.hours_high - own.hours_mid == pytest.approx(half * 6000 / 3600)
    far_curve, far = (token_curve.arc_hours(curve, r, 2048, 1000) for r in (plain, timed))
    ratio = (own.hours_mid - fixed) / (by_curve.hours_mid - fixed)
    assert far.hours_mid - fixed == pytest.approx(ratio * (far_curve.hours_mid - fixed))
    assert far.hours_high - far.hours_mid > own.hours_high - own.hours_mid
