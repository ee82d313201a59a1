"""The probe of a card, on the CPU: a clock and products that behave as a card's."""

import itertools

import pytest
import torch

from harness.hardware import probe

CPU = torch.device("cpu")


class Card:
    """A clock of a card that starts at low clocks: `first` runs take three times `steady_s`, bursts of luck a tenth."""

    def __init__(self, steady_s, first, lucky_every=10):
        self.now, self.runs = 0.0, itertools.count()
        self.steady_s, self.first, self.lucky_every = steady_s, first, lucky_every

    def clock(self):
        return self.now

    def run(self, *_):
        number = next(self.runs)
        slow = 3.0 if number < self.first else 0.1 if number % self.lucky_every == 0 else 1.0
        self.now += slow * self.steady_s


@pytest.fixture
def plan(monkeypatch):
    """Sixteen columns in the place of 8192, for this CPU multiplies really."""
    monkeypatch.setitem(probe._PLANS, "cpu", probe._Plan(((4, 4, 4), (16, 16, 16)), 16, warm_up_s=0.2, sustained_s=0.3))


def test_a_cards_rate_is_what_it_keeps_up(plan, monkeypatch):
    """Neither the first 50 runs at low clocks count, nor the one in ten that is lucky: 2 x 16^3 FLOP in 10 ms."""
    card = Card(0.01, first=12)
    monkeypatch.setattr(torch, "matmul", card.run)
    rates = probe.rates(CPU, (), clock=card.clock)
    assert rates["fp32"].forward == pytest.approx(2 * 16**3 / 0.01)
    assert rates["fp32"].backward == pytest.approx(2 * 16**3 / 0.01)
    assert card.now > 2 * (0.2 + 0.3)


def test_an_emulated_dtype_is_not_kept_up(plan, monkeypatch):
    """A product of 0.4 s: once, and no larger one."""
    card = Card(0.4, first=0, lucky_every=1000)
    next(card.runs)
    monkeypatch.setattr(torch, "matmul", card.run)
    assert probe.rates(CPU, (), clock=card.clock)["fp32"].forward == pytest.approx(2 * 4**3 / 0.4)
    assert card.now == pytest.approx(0.8)


def test_where_memory_ends_the_smaller_product_counts(plan, monkeypatch):
    card, randn = Card(0.01, first=0), torch.randn

    def small_alone(size, **where):
        if size[0] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return randn(size, **where)

    monkeypatch.setattr(torch, "matmul", card.run)
    monkeypatch.setattr(torch, "randn", small_alone)
    assert probe.rates(CPU, (), clock=card.clock)["fp32"].forward > 0


def test_bandwidth_counts_what_is_read_and_written():
    """A megabyte in 1 ms at a clock that a copy's wait moves: 2 MB per ms, whatever the first copies took."""
    times = itertools.chain([0.0, 0.0], itertools.count(0.0, 0.001))
    bandwidth = probe.copy_bandwidth(CPU, clock=lambda: next(times), size=1_000_000)
    assert bandwidth == pytest.approx(2e9, rel=1e-6)


@pytest.mark.parametrize(("processor_s", "native"), [(0.004, True), (0.02, False)])
def test_others_that_take_the_core_from_one_dtype_do_not_make_it_emulated(monkeypatch, processor_s, native):
    """By seconds bf16 is three times as slow as fp32, which had the core to itself; by the processor's time it is
    faster, or it is not."""
    monkeypatch.setitem(probe._PLANS, "cpu", probe._Plan(((4, 4, 4),)))
    wall, processor = [0.0], [0.0]

    def run(a, b):
        half = a.dtype == torch.bfloat16
        wall[0] += 0.03 if half else 0.01
        processor[0] += processor_s if half else 0.01

    monkeypatch.setattr(torch, "matmul", run)
    rates = probe.rates(CPU, ("bf16",), clock=lambda: wall[0], processor_clock=lambda: processor[0])
    assert rates["fp32"].native and rates["bf16"].native == native
    assert rates["bf16"].forward == pytest.approx(2 * 4**3 / 0.03)  # what it does here, now
