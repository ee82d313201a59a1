import pytest

from harness.measure.timing import sample


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
    assert timed.warmup_micro_s == [2.0]  # a second of warm-up is enough
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
    assert seen[:3] == ["warm-up", "warm-up", "sampling"]
    assert first == [2]


def test_a_failing_step_is_not_hidden():
    with pytest.raises(StopIteration):
        World([1.0, 1.0]).run()
