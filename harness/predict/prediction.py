"""Time and memory of a cell on an accelerator that is not at hand, with an interval, from traces and a calibration.

Hours are for everything that comes out of the budget: load, warm-up, training, and the answers of the test tasks.
They are for sequences of ARC's lengths, the longer ones dropped: seconds are integrated over the lengths, for attention
makes them grow faster than tokens.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from harness.analysis.verdict import WHOLE_SHARE, fits
from harness.arc import lengths
from harness.catalog import precisions
from harness.catalog.accelerators import CUDA, Accelerator
from harness.catalog.precisions import Precision
from harness.predict import roofline
from harness.predict.calibration import Calibration
from harness.predict.roofline import BANDWIDTH, KINDS, LAUNCH, Trace
from harness.predict.trace_pool import TraceKey, kind_of
from harness.records.cell import Goal, ModelSpec, Recipe

_LOAD_S, _LOAD_BYTES_PER_S = 8.0, 1e9  # libraries; weights from a disk
# Answers: mean tokens of an ARC-AGI-1 evaluation output and of a question, two views of each task, decoded by eight.
_ANSWER_TOKENS, _QUESTION_TOKENS, _VIEWS, _DECODED_AT_ONCE = 248, 2316, 2, 8
_FACTOR = 4  # beyond so many times what a calibration has seen, it is said to reach far
_OTHER_STEP_SIGMA = 0.2
_LINK_BYTES_PER_S = 10e9  # between cards, by PCIe


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one cell. `log_sigma` and `memory_log_sigma` are standard deviations of the logarithms of
    seconds and bytes; `caveats` say what lies beyond all that was measured."""

    spec: ModelSpec
    precision: Precision
    compute_dtype: str
    context: int
    recipe: Recipe
    accelerator: Accelerator
    trace: Trace
    micro_s: float  # at the full context
    step_s: float
    arc_step_s: float | None  # over ARC's lengths up to the context; None where none is so short
    load_s: float
    answers_s: float
    peak_bytes: float  # of a card, the fullest
    overhead_bytes: float  # context, libraries, and what the allocator rounds up
    log_sigma: float
    memory_log_sigma: float
    caveats: tuple[str, ...] = ()
    source: str = ""

    @property
    def native(self) -> bool:
        return self.compute_dtype in self.accelerator.native

    def hours(self, goal: Goal) -> tuple[float, float, float]:
        """(low, middle, high) hours of load, `goal.steps` steps over ARC's lengths and the answers: 95 %."""
        training = goal.steps * (self.arc_step_s if self.arc_step_s is not None else self.step_s)
        answers = self.answers_s * goal.test_tasks
        mid = (training + answers) / 3600
        width = math.exp(1.96 * self.log_sigma)
        load = (self.load_s + self.step_s) / 3600
        return load + mid / width, load + mid, load + mid * width

    @property
    def memory_factor(self) -> float:
        """How many times the predicted peak may be the real one, or it the real one's: 95 %."""
        return math.exp(1.96 * self.memory_log_sigma)

    def fits_memory(self) -> bool | None:
        """Whether the card holds it; None where the interval does not say."""
        width = self.memory_factor
        if self.peak_bytes * width <= self.accelerator.memory_bytes:
            return True
        return False if self.peak_bytes / width > self.accelerator.memory_bytes else None

    def verdict(self, goal: Goal) -> str:
        """Judged on the high end of the hours for everything; `unsure` where the interval spans the budget."""
        if self.fits_memory() is False:
            return "too big"
        low, _, high = self.hours(goal)
        if fits(high, goal.budget_hours, WHOLE_SHARE):
            return "fits" if self.fits_memory() else "fits?"
        return "too slow" if low > goal.budget_hours else "unsure"


def subject(spec: ModelSpec, precision: Precision, recipe: Recipe, accelerator: Accelerator, context: int) -> TraceKey:
    """What is to be traced. 16-bit dtypes share their operations, so one trace serves both."""
    compute = compute_of(precision, accelerator)
    if precision.name == "fp16":
        precision = precisions.find("bf16")
    recipe = replace(recipe, data_parallel=1, layer_split=1)
    return TraceKey(spec, precision, "fp32" if compute == "fp32" else "bf16", recipe, context, kind_of(accelerator))


def compute_of(precision: Precision, accelerator: Accelerator) -> str:
    return precision.compute or accelerator.native_half


def contexts_for(context: int) -> tuple[int, ...]:
    """The lengths to trace: the context, and two shorter ones that give the shape for all others."""
    return tuple(sorted({context, max(16, context // 2), max(8, context // 4)}))


def subjects(
    spec: ModelSpec, precision: Precision, recipe: Recipe, accelerator: Accelerator, context: int
) -> dict[int, TraceKey]:
    return {n: subject(spec, precision, recipe, accelerator, n) for n in contexts_for(context)}


def predict(
    spec: ModelSpec,
    precision: Precision,
    recipe: Recipe,
    accelerator: Accelerator,
    traces: Mapping[int, Trace],
    context: int,
    calibration: Calibration,
) -> Prediction:
    """The prediction of one cell from its `traces` by context (see `contexts_for`).

    Raises UserError for a dtype that the accelerator does not compute.
    """
    compute = compute_of(precision, accelerator)
    accelerator.rate(compute)
    traces = {n: trace.computed_in(compute) for n, trace in traces.items()}
    seconds = _seconds_by_length(traces, accelerator, calibration)
    whole = traces[context]
    micro_s = seconds(context)
    per_step = recipe.micro_steps_per_step
    update_s = _update_s(whole, accelerator, calibration) + _shared_s(whole, recipe)
    mean_s = lengths.mean_over(seconds, context)
    log_sigma, caveats = _uncertainty(micro_s, accelerator, recipe, calibration)
    allocator = calibration.allocator
    transient = allocator.held(whole.memory.transient, compute == "fp32")
    overhead = (accelerator.context_bytes if accelerator.kind == CUDA else 0) + allocator.base_bytes
    split = recipe.layer_split
    # Of a split model the last card holds the logits, each its part of everything else.
    shared = (whole.memory.persistent + transient) / split + whole.memory.logits
    return Prediction(
        spec,
        precision,
        compute,
        context,
        recipe,
        accelerator,
        whole,
        micro_s,
        per_step * micro_s + update_s,
        per_step * mean_s + update_s if mean_s is not None else None,
        _LOAD_S + whole.memory.weights / _LOAD_BYTES_PER_S,
        _answers_s(whole, accelerator, calibration, min(context, _QUESTION_TOKENS)) / recipe.data_parallel,
        shared + overhead,
        overhead + transient - whole.memory.transient,
        log_sigma,
        calibration.memory_error,
        caveats,
        calibration.source,
    )


def nominal_over_lengths(traces: Mapping[int, Trace], accelerator: Accelerator, context: int) -> dict[str, float]:
    """Nominal seconds by kind of a micro-step, in the mean over ARC's lengths up to `context`."""
    nominal = {n: roofline.nominal_seconds(trace, accelerator) for n, trace in traces.items()}
    out = {}
    for kind in KINDS:
        out[kind] = lengths.mean_over(_interpolate({n: each[kind] for n, each in nominal.items()}), context)
    return out


def _seconds_by_length(
    traces: Mapping[int, Trace], accelerator: Accelerator, calibration: Calibration
) -> Callable[[float], float]:
    at = {
        n: roofline.seconds(roofline.nominal_seconds(t, accelerator), calibration.slowdown) for n, t in traces.items()
    }
    return _interpolate(at)


def _interpolate(values: Mapping[int, float]) -> Callable[[float], float]:
    """The polynomial through (tokens, value), of a degree below their number, and never below zero (Lagrange)."""
    points = sorted(values.items())

    def value(tokens: float) -> float:
        total = 0.0
        for n, y in points:
            total += y * math.prod((tokens - m) / (n - m) for m, _ in points if m != n)
        return max(0.0, total)

    return value


def _update_s(trace: Trace, accelerator: Accelerator, calibration: Calibration) -> float:
    """The fused AdamW reads weight, gradient and two states and writes all but the gradient: 7 passes."""
    passes = 7 * trace.memory.gradients / accelerator.bandwidth
    return passes * calibration.slowdown[BANDWIDTH] + accelerator.launch_s * calibration.slowdown[LAUNCH]


def _shared_s(trace: Trace, recipe: Recipe) -> float:
    """Adding up gradients of several processes: each sends and receives them all once (a ring), over PCIe."""
    return 2 * trace.memory.gradients / _LINK_BYTES_PER_S if recipe.data_parallel > 1 else 0.0


def _answers_s(trace: Trace, accelerator: Accelerator, calibration: Calibration, question: int) -> float:
    """Seconds a task: reading the question in each view, then a token at a time, for which all weights are read."""
    forward = replace(trace, ops=tuple(op for op in trace.ops if not op.backward))
    sequences = trace.sequences * trace.tokens / question
    reading = roofline.seconds(roofline.nominal_seconds(forward, accelerator), calibration.slowdown) / sequences
    launches = sum(op.count for op in forward.ops) * accelerator.launch_s * calibration.slowdown[LAUNCH]
    read_s = (trace.memory.weights + trace.memory.constants) / accelerator.bandwidth * calibration.slowdown[BANDWIDTH]
    token = read_s + launches
    return _VIEWS * (reading + _ANSWER_TOKENS * token / _DECODED_AT_ONCE)


def _uncertainty(
    micro_s: float, accelerator: Accelerator, recipe: Recipe, calibration: Calibration
) -> tuple[float, tuple[str, ...]]:
    """The logarithm's standard deviation, and what makes it larger than the calibration's own error."""
    log_sigma, caveats = calibration.error, []
    if not calibration.points:
        return log_sigma, (f"nothing was measured on {accelerator.name} yet",)
    if recipe.implementation != calibration.step:
        caveats.append(f"{accelerator.name} is known by another step than {recipe.implementation}'s")
        log_sigma = math.hypot(log_sigma, _OTHER_STEP_SIGMA)
    reach = max(micro_s / calibration.seconds_high, calibration.seconds_low / micro_s)
    if reach > _FACTOR:
        caveats.append(f"micro-steps over {_FACTOR} times beyond those measured on {accelerator.name}")
        log_sigma = math.hypot(log_sigma, 0.1 * math.log2(reach))
    return log_sigma, tuple(caveats)
