"""The measuring loop: warm-up kept apart, then micro-steps until their median is known well enough.

Knows no torch: what it times are two functions, and the clock and the wait for the device are arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.analysis.stats import median_half_width

TARGET = 0.02  # half-width of the median's 95 % interval, relative
MIN_SAMPLES = 3
MIN_SECONDS = 5.0  # a median of the first milliseconds says little of hours
_WARM_S, _WARM_MAX = 1.0, 5


@dataclass
class Samples:
    """Raw seconds, in the order in which they were taken."""

    warmup_micro_s: list[float] = field(default_factory=list)
    warmup_optimizer_s: list[float] = field(default_factory=list)
    micro_s: list[float] = field(default_factory=list)
    optimizer_s: list[float] = field(default_factory=list)


def sample(  # noqa: PLR0913  # the clock, the wait and the ends of sampling are seams, each with a name
    micro_step: Callable[[], None],
    update: Callable[[], None],
    *,
    wait: Callable[[], None],
    clock: Callable[[], float],
    micro_steps_per_step: int,
    max_seconds: float,
    after_first_step: Callable[[], None] = lambda: None,
    on_sample: Callable[[str, float], None] = lambda phase, seconds: None,
) -> Samples:
    """Times `micro_step` and `update` in the rhythm of training.

    Warm-up: one micro-step and one update (which makes the optimiser's state), then further micro-steps up to a second
    or five of them. Sampling: an update after every `micro_steps_per_step` micro-steps and one at the end, until the
    median's 95 % interval is within 2 % (and five seconds have been sampled), or until the next micro-step would pass
    `max_seconds` (warm-up included), but three micro-steps at least.
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
    while sum(samples.warmup_micro_s) < _WARM_S and len(samples.warmup_micro_s) < _WARM_MAX:
        timed(micro_step, samples.warmup_micro_s, "warm-up")
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
        if taken >= next_check and now - sampled_from >= MIN_SECONDS:
            half = median_half_width(samples.micro_s)
            if half is not None and half <= TARGET:
                break
            next_check = taken + 1 + taken // 20  # sorting at every sample would cost more than short micro-steps do
    if not samples.optimizer_s:
        timed(update, samples.optimizer_s, "update")
    return samples
