"""Seconds of a step from its traces: as its kernels run it on a device, at any length, and of the update."""

import math
from collections.abc import Callable, Mapping

from harness.arc.lengths import PUBLISHED
from harness.catalog import optimizers
from harness.catalog.accelerators import CUDA, Accelerator
from harness.catalog.kernels import PLAIN, POINTWISE
from harness.errors import UserError
from harness.predict import roofline
from harness.predict.calibration import Calibration
from harness.predict.roofline import BANDWIDTH, KINDS, LAUNCH, Trace
from harness.records.cell import FULL, OPTIMIZED, Recipe


def as_run(trace: Trace, recipe: Recipe, accelerator: Accelerator, compute: str, kernels: str = "") -> Trace:
    """`trace` in the dtype `compute`, and with the kernels between products that the step has on `accelerator`.

    Our step's are fused on a card, unless the recipe, or a row's `kernels`, names the plain ones.
    """
    trace = trace.computed_in(compute)
    ours = recipe.implementation == OPTIMIZED and recipe.method != FULL and accelerator.kind == CUDA
    named_plain = f"{POINTWISE}={PLAIN}" in f"{recipe.kernels} {kernels}".split() or recipe.kernels == PLAIN
    return trace.with_fused_pointwise() if ours and not named_plain else trace


def nominal_over_lengths(traces: Mapping[int, Trace], accelerator: Accelerator, context: int) -> dict[str, float]:
    """Nominal seconds by kind of a micro-step, averaged over ARC's lengths up to `context`.

    Raises UserError where no sequence of ARC is so short.
    """
    nominal = {n: roofline.nominal_seconds(trace, accelerator) for n, trace in traces.items()}
    means: dict[str, float] = {}
    for kind in KINDS:
        mean_s = PUBLISHED.mean_over(_interpolate({n: by_kind[kind] for n, by_kind in nominal.items()}), context)
        if mean_s is None:
            raise UserError(f"no sequence of ARC has {context} tokens or fewer")
        means[kind] = mean_s
    return means


def seconds_by_length(
    traces: Mapping[int, Trace], accelerator: Accelerator, calibration: Calibration
) -> Callable[[float], float]:
    """Seconds of a micro-step as a function of its tokens."""
    nominal = {n: roofline.nominal_seconds(trace, accelerator) for n, trace in traces.items()}
    # Kind by kind, for where host and device take turns in being the slower one no polynomial is near their norm.
    by_kind = {kind: _interpolate({n: values[kind] for n, values in nominal.items()}) for kind in KINDS}
    return lambda tokens: roofline.seconds({kind: of(tokens) for kind, of in by_kind.items()}, calibration.slowdown)


def _interpolate(values: Mapping[int, float]) -> Callable[[float], float]:
    """The polynomial through (tokens, value), of a degree below their number, and never below zero (Lagrange)."""
    points = sorted(values.items())

    def value(tokens: float) -> float:
        total = 0.0
        for n, y in points:
            total += y * math.prod((tokens - m) / (n - m) for m, _ in points if m != n)
        return max(0.0, total)

    return value


def update_seconds(trace: Trace, recipe: Recipe, accelerator: Accelerator, calibration: Calibration) -> float:
    """Seconds of the optimiser's passes over weights, gradients and states."""
    passes = optimizers.find(recipe.optimizer).passes * trace.memory.gradients / accelerator.bandwidth
    return passes * calibration.slowdown[BANDWIDTH] + accelerator.launch_s * calibration.slowdown[LAUNCH]
