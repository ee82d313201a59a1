import pytest

from harness.measure.timing import is_flat, sample, sample_whole_steps, soak
from harness.records.measurement import CardState


class World:
    """A clock that moves only when work is done: `micro` gives each micro-step's seconds, updates take 0.5 s."""

    def __init__(self, micro):
        self.now, self.micro, self.log = 0.0, iter(micro), []

    def micro_step(self):
        self.now += next(self.micro)
        self.log.append("m")

    def update(self):
        self.now += 0.5
        self.log.append("u")

    def run(self, max_seconds=1000.0, per_step=4, **more):
        return sample(
            self.micro_step,
            self.update,
            wait=lambda: self.log.append("w"),
            clock=lambda: self.now,
            micro_steps_per_step=per_step,
            max_seconds=max_seconds,
            **more,
        )


def _forever(*seconds):
    while True:
        yield from seconds


def test_stops_when_the_median_is_known():
    world = World(_forever(2.0))
    timed = world.run()
    assert timed.warmup_micro_s == [2.0, 2.0]  # the first one loads libraries; a second after it is enough
    assert timed.warmup_optimizer_s == [0.5]
    assert timed.micro_s == [2.0] * 6  # the fewest that give a median an interval
    assert timed.optimizer_s == [0.5]  # after four


def test_short_micro_steps_are_sampled_for_five_seconds():
    timed = World(_forever(0.01)).run()
    assert len(timed.warmup_micro_s) == 5
    assert 5.0 <= sum(timed.micro_s) + sum(timed.optimizer_s) < 5.5
    assert len(timed.optimizer_s) == len(timed.micro_s) // 4


def test_noise_is_sampled_to_the_cap():
    timed = World(_forever(1.0, 2.0, 4.0)).run(max_seconds=60)
    spent = sum(timed.warmup_micro_s) + sum(timed.micro_s) + sum(timed.optimizer_s)
    assert 50 < spent <= 60.5


def test_three_micro_steps_even_over_the_cap():
    assert World(_forever(100.0)).run(max_seconds=60).micro_s == [100.0] * 3


def test_the_device_is_waited_for_at_both_ends():
    world = World(_forever(2.0))
    world.run()
    log = "".join(world.log)
    assert log.count("w") == 2 * (log.count("m") + log.count("u"))
    assert log.startswith("wmwwuw")


def test_phases_are_told():
    seen, first = [], []
    World(_forever(2.0)).run(
        on_sample=lambda phase, seconds: seen.append(phase), after_first_step=lambda: first.append(len(seen))
    )
    assert seen[:4] == ["warm-up", "warm-up", "warm-up", "sampling"]
    assert first == [2]


def test_a_failing_step_is_not_hidden():
    with pytest.raises(StopIteration):
        World([1.0, 1.0]).run()


def test_a_slow_first_call_is_not_taken_for_warmth():
    """Kernels are compiled for 4 s; a second of warm micro-steps, or four of them, comes after that."""
    timed = World(iter([4.0, *[0.125] * 1000])).run()
    assert timed.warmup_micro_s == [4.0, 0.125, 0.125, 0.125, 0.125]
    assert max(timed.micro_s) == 0.125


def test_a_card_is_sampled_for_half_a_minute():
    timed = World(_forever(0.01)).run(min_seconds=30.0)
    assert 30.0 <= sum(timed.micro_s) + sum(timed.optimizer_s) < 31.0


class Card:
    """A card that heats up: every 10 s of work cost 6 % of its clock and give 4 degrees, until it is at 900 MHz."""

    def __init__(self, steps=20, blind=False):
        self.now, self.steps, self.blind, self.work_s = 0.0, steps, blind, []

    @property
    def mhz(self):
        return max(900.0, 1590.0 * 0.94 ** min(self.steps, self.now // 10))

    def micro_step(self):
        self.work_s.append(300.0 / self.mhz)
        self.now += self.work_s[-1]

    def read(self):
        if self.blind:
            return CardState()
        return CardState(self.mhz, 40.0 + 4 * min(self.steps, self.now // 10, 9), 70.0)

    def sampled(self, max_seconds=60.0, soak_s=180.0):
        return sample(
            self.micro_step,
            lambda: None,
            wait=lambda: None,
            clock=lambda: self.now,
            micro_steps_per_step=4,
            max_seconds=max_seconds,
            min_seconds=30.0,
            settle=lambda work: soak(work, self.read, clock=lambda: self.now, max_seconds=soak_s),
        )


def test_a_card_that_throttles_is_sampled_at_the_speed_that_it_keeps():
    """It stands still from 100 s on, which half a minute of readings shows; cold it would be 1.77 times as fast."""
    card = Card()
    timed = card.sampled()
    assert 125 < timed.soak_s < 140
    assert timed.micro_s == pytest.approx([300.0 / 900.0] * len(timed.micro_s))
    assert timed.warmup_micro_s[0] == pytest.approx(300.0 / 1590.0)
    cold = Card().sampled(soak_s=0.0)
    assert min(cold.micro_s) < 0.6 * timed.micro_s[0]


def test_soaking_has_an_end():
    restless = Card(steps=10**9)
    restless.read = lambda: CardState(1000.0 + restless.now % 500, 50.0)
    assert restless.sampled().soak_s == pytest.approx(180, abs=2)
    blind = Card(blind=True)
    assert blind.sampled().soak_s == pytest.approx(30, abs=2)


def test_soaking_is_no_part_of_the_time_of_sampling():
    timed = Card().sampled(max_seconds=20.0)
    assert 15 < sum(timed.micro_s) < 20


def test_flat_is_half_a_minute_of_one_clock_and_one_temperature():
    flat = [CardState(1000.0, 70.0)] * 30
    assert is_flat(flat) and is_flat([CardState(1590.0, 40.0), *flat])
    assert not is_flat(flat[1:])
    assert not is_flat([*flat[1:], CardState(960.0, 70.0)])
    assert not is_flat([*flat[1:], CardState(1000.0, 71.5)])


def _steps(*seconds):
    now, durations = [0.0], iter(seconds)

    def step():
        now[0] += next(durations)

    return sample_whole_steps(step, wait=lambda: None, clock=lambda: now[0], max_seconds=100.0)


def test_whole_steps_until_their_mean_is_known_or_the_time_is_used_up():
    assert _steps(9.0, 5.0, 5.0625, 5.0, 1.0) == [5.0, 5.0625, 5.0]
    noisy = _steps(5.0, *[5.0, 9.0] * 20)
    assert 90 < 5.0 + sum(noisy) <= 104  # the next step may take longer than the last one did
    assert _steps(400.0, 300.0, 310.0, 1.0) == [300.0, 310.0]
