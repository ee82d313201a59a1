"""The measuring loop: warm-up kept apart, then micro-steps until their median is known well enough.

Knows no torch: what it times are two functions, and the clock and the wait for the device are arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.analysis.stats import mean_half_width, median_half_width
from harness.records.measurement import CardState

TARGET = 0.02  # half-width of the median's 95 % interval, relative
MIN_SAMPLES = 3
# By kind of device: a median of the first milliseconds says little of hours, and a card's clock changes over seconds.
MIN_SECONDS = {"cpu": 5.0, "cuda": 30.0}
_WARM_S, _WARM_MAX = 1.0, 5
_FIRST_SHARE = 0.1  # of the most seconds: where the first micro-step takes longer, no more are spent on warm-up
_MIN_STEPS, _STEPS_TARGET = 2, 0.03  # of whole steps; the target is half of their mean's 95 % interval
_READ_EVERY_S = 1.0
_WINDOW = 30  # readings within which clock and temperature must be flat
_CLOCK_RANGE, _CELSIUS_RANGE = 0.03, 1.0
_BLIND_S = 30.0  # of soaking where the card tells neither


@dataclass
class Samples:
    """Raw seconds, in the order in which they were taken."""

    warmup_micro_s: list[float] = field(default_factory=list)
    warmup_optimizer_s: list[float] = field(default_factory=list)
    micro_s: list[float] = field(default_factory=list)
    optimizer_s: list[float] = field(default_factory=list)
    soak_s: float = 0.0  # of the same work between warm-up and sampling


def sample(  # noqa: PLR0913  # the clock, the wait and the ends of sampling are seams, each with a name
    micro_step: Callable[[], None],
    update: Callable[[], None],
    *,
    wait: Callable[[], None],
    clock: Callable[[], float],
    micro_steps_per_step: int,
    max_seconds: float,
    min_seconds: float = MIN_SECONDS["cpu"],
    settle: Callable[[Callable[[], None]], float] = lambda work: 0.0,
    after_first_step: Callable[[], None] = lambda: None,
    on_sample: Callable[[str, float], None] = lambda phase, seconds: None,
) -> Samples:
    """Times `micro_step` and `update` in the rhythm of training.

    Warm-up: one micro-step and one update (which makes the optimiser's state), then further micro-steps up to a second
    or five of them in all. Then `settle`, given a function that does one step's work, may run that until the device is
    steady, and returns its seconds. Sampling: an update after every `micro_steps_per_step` micro-steps and one at the
    end, until the median's 95 % interval is within 2 % (and `min_seconds` have been sampled), or until the next
    micro-step would pass `max_seconds` (warm-up included, settling not), but three micro-steps at least.
    """
    samples = Samples()
    began_s = clock()

    def timed(run: Callable[[], None], seconds: list[float], phase: str) -> None:
        wait()
        start = clock()
        run()
        wait()
        seconds.append(clock() - start)
        on_sample(phase, seconds[-1])

    # Warm-up: the first step makes the optimiser's state, and first calls load and compile kernels.
    timed(micro_step, samples.warmup_micro_s, "warm-up")
    timed(update, samples.warmup_optimizer_s, "warm-up")
    after_first_step()
    # The first one loads libraries, so it says nothing of whether the device is warm.
    cheap = samples.warmup_micro_s[0] < _FIRST_SHARE * max_seconds
    while cheap and sum(samples.warmup_micro_s[1:]) < _WARM_S and len(samples.warmup_micro_s) < _WARM_MAX:
        timed(micro_step, samples.warmup_micro_s, "warm-up")

    def work() -> None:
        for _ in range(micro_steps_per_step):
            micro_step()
        update()
        wait()
        on_sample("soak", 0.0)

    samples.soak_s = settle(work)
    began_s += samples.soak_s
    # Sampling, until the median is known well enough or the time is used up.
    sampled_from, next_check = clock(), MIN_SAMPLES
    while True:
        timed(micro_step, samples.micro_s, "sampling")
        taken = len(samples.micro_s)
        if taken % micro_steps_per_step == 0:
            timed(update, samples.optimizer_s, "update")
        now = clock()
        if taken >= MIN_SAMPLES and now - began_s + samples.micro_s[-1] > max_seconds:
            break
        if taken >= next_check and now - sampled_from >= min_seconds:
            half = median_half_width(samples.micro_s)
            if half is not None and half <= TARGET:
                break
            next_check = taken + 1 + taken // 20  # sorting at every sample would cost more than short micro-steps do
    if not samples.optimizer_s:
        timed(update, samples.optimizer_s, "update")
    return samples


def sample_whole_steps(
    step: Callable[[], None],
    *,
    wait: Callable[[], None],
    clock: Callable[[], float],
    max_seconds: float,
    on_sample: Callable[[str, float], None] = lambda phase, seconds: None,
) -> list[float]:
    """Seconds of whole optimiser steps, each of other sequences; the first is warm-up and not among them.

    Until the mean's 95 % interval is within 3 % or the next step would pass `max_seconds`, but two steps at least.
    """
    seconds: list[float] = []
    began_s = clock()
    while True:
        wait()
        start = clock()
        step()
        wait()
        seconds.append(clock() - start)
        on_sample("ARC's lengths", seconds[-1])
        counted = seconds[1:]
        if len(counted) < _MIN_STEPS:
            continue
        known = len(counted) >= MIN_SAMPLES and mean_half_width(counted) <= _STEPS_TARGET
        if known or clock() - began_s + seconds[-1] > max_seconds:
            return counted


def soak(
    work: Callable[[], None],
    read: Callable[[], CardState | None],
    *,
    clock: Callable[[], float],
    max_seconds: float,
) -> float:
    """Runs `work` until the clock and the temperature that `read` tells once a second are flat; returns the seconds.

    Ends after `max_seconds` at the latest, and after half a minute where the card tells neither.
    """
    began_s = read_s = clock()
    readings: list[CardState] = []
    while clock() - began_s < max_seconds:
        work()
        if clock() - read_s >= _READ_EVERY_S:
            read_s = clock()
            state = read()
            if state and state.sm_mhz and state.celsius is not None:
                readings.append(state)
        if is_flat(readings) or (not readings and clock() - began_s >= _BLIND_S):
            break
    return clock() - began_s


def is_flat(readings: Sequence[CardState]) -> bool:
    """Whether the last half minute of readings has one clock (to 3 %) and one temperature (to a degree)."""
    window = readings[-_WINDOW:]
    if len(window) < _WINDOW:
        return False
    clocks = [state.sm_mhz or 0.0 for state in window]
    celsius = [state.celsius or 0.0 for state in window]
    return max(clocks) <= (1 + _CLOCK_RANGE) * min(clocks) and max(celsius) - min(celsius) <= _CELSIUS_RANGE
