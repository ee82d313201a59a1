"""Time and memory of a cell on an accelerator that is not at hand, with an interval, from traces and a calibration.

Hours cover everything that the budget pays for: load, warm-up, training, and the answers of the test tasks. They are
for sequences of ARC's lengths, longer ones dropped: seconds are integrated over the lengths, because attention makes
them grow faster than tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.analysis.budget import WHOLE_SHARE, fits
from harness.arc.lengths import PUBLISHED, LengthDistribution
from harness.catalog import efficiency, precisions
from harness.catalog.accelerators import CUDA, Accelerator
from harness.catalog.precisions import Precision
from harness.predict import answering, roofline
from harness.predict.allocator import held_logits
from harness.predict.answering import cache_size
from harness.predict.calibration import Calibration
from harness.predict.roofline import Trace
from harness.predict.step_seconds import as_run, seconds_by_length, update_seconds
from harness.predict.trace_pool import TraceKey, kind_of
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.records.measurement import PredictedAnswers

_LOAD_S, _LOAD_BYTES_PER_S = 8.0, 1e9  # libraries; weights from a disk
_TRUSTED_REACH = 4  # times the micro-steps that a calibration has seen; beyond, the interval grows
_OTHER_STEP_LOG_SIGMA = 0.2  # of one implementation's step predicted by another's
_LINK_BYTES_PER_S = 10e9  # between cards, by PCIe


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """One cell on one accelerator, and the calibration that it is predicted by."""

    spec: ModelSpec
    precision: Precision
    recipe: Recipe
    context: int
    accelerator: Accelerator
    calibration: Calibration
    lengths: LengthDistribution = PUBLISHED  # of the sequences that hours are for

    @property
    def compute_dtype(self) -> str:
        return compute_of(self.precision, self.accelerator)

    def trace_keys(self) -> dict[int, TraceKey]:
        """What `predict` takes traces of, by context."""
        return trace_keys(self.spec, self.precision, self.recipe, self.accelerator, self.context)


@dataclass(frozen=True, kw_only=True)
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
    answers: PredictedAnswers  # of one card
    peak_bytes: float  # of the fullest card
    overhead_bytes: float  # context, libraries, and what the allocator rounds up
    log_sigma: float
    memory_log_sigma: float
    caveats: tuple[str, ...] = ()
    source: str = ""
    evidence: str = ""  # what the numbers rest on: one of harness.predict.calibration.EVIDENCE
    lengths: LengthDistribution = PUBLISHED

    @property
    def update_s(self) -> float:
        """Seconds of a step's optimiser update, and of sharing gradients among cards."""
        return self.step_s - self.recipe.micro_steps_per_step * self.micro_s

    @property
    def seconds_factor(self) -> float:
        """Real seconds are within this factor of the predicted ones, either way: 95 %."""
        return math.exp(1.96 * self.log_sigma)

    @property
    def native(self) -> bool:
        return self.compute_dtype in self.accelerator.native

    def hours(self, goal: Goal) -> tuple[float, float, float]:
        """(low, middle, high) hours of load, `goal.steps` steps over ARC's lengths and the answers: 95 %."""
        # The interval covers what was calibrated, training and answers; loading is added as it is.
        training_s = goal.steps * (self.arc_step_s if self.arc_step_s is not None else self.step_s)
        mid_h, factor = (training_s + self.answers_s * goal.test_tasks) / 3600, math.exp(1.96 * self.log_sigma)
        load_h = (self.load_s + self.step_s) / 3600  # and a step of warm-up
        return load_h + mid_h / factor, load_h + mid_h, load_h + mid_h * factor

    @property
    def memory_factor(self) -> float:
        """The real peak is within this factor of the predicted one, either way: 95 %. A card's context is certain."""
        context = self.accelerator.context_bytes if self.accelerator.kind == CUDA else 0
        uncertain = max(0.0, 1 - context / self.peak_bytes)
        return 1 + uncertain * math.expm1(1.96 * self.memory_log_sigma)

    def fits_memory(self) -> bool | None:
        """Whether the card's memory is enough; None where the interval spans it."""
        if self.peak_bytes * self.memory_factor <= self.accelerator.memory_bytes:
            return True
        return False if self.peak_bytes / self.memory_factor > self.accelerator.memory_bytes else None

    def verdict(self, goal: Goal) -> str:
        """Judged on the high end of the hours for everything; `unsure` where the interval spans the budget. `fits?` and
        `too big?` where that of the memory spans the card's, by its middle."""
        if self.fits_memory() is False:
            return "too big"
        low, _, high = self.hours(goal)
        if fits(high, goal.budget_hours, WHOLE_SHARE):
            held = self.peak_bytes <= self.accelerator.memory_bytes
            return "fits" if self.fits_memory() else "fits?" if held else "too big?"
        return "too slow" if low > goal.budget_hours else "unsure"


def trace_key(
    spec: ModelSpec, precision: Precision, recipe: Recipe, accelerator: Accelerator, context: int
) -> TraceKey:
    """The key of a cell's trace. 16-bit dtypes share their operations, and where attention allows it the trace."""
    compute = compute_of(precision, accelerator)
    dtype = "fp32" if compute == "fp32" else "bf16"
    if precision.name == "fp16":
        precision = precisions.find("bf16")
    adapter = recipe.adapter_dtype if recipe.adapter_dtype == "fp32" else "bf16"
    recipe = replace(recipe, data_parallel=1, layer_split=1, adapter_dtype=adapter)
    return TraceKey(spec, precision, dtype, recipe, context, kind_of(accelerator, compute))


def compute_of(precision: Precision, accelerator: Accelerator) -> str:
    """The dtype that `precision` computes in on this accelerator."""
    return precision.compute or accelerator.native_half


def contexts_for(context: int) -> tuple[int, ...]:
    """The lengths to trace: the context, and two shorter ones that give the shape for all others."""
    return tuple(sorted({context, max(16, context // 2), max(8, context // 4)}))


def trace_keys(
    spec: ModelSpec, precision: Precision, recipe: Recipe, accelerator: Accelerator, context: int
) -> dict[int, TraceKey]:
    """`trace_key` at each of `contexts_for(context)`."""
    return {n: trace_key(spec, precision, recipe, accelerator, n) for n in contexts_for(context)}


def predict_cell(request: PredictRequest, traces: Mapping[int, Trace]) -> Prediction:
    """The prediction of a cell from its traces by context: those of `request.trace_keys()`, or its own context's alone.

    Raises UserError for a dtype that the accelerator does not compute.
    """
    recipe, accelerator, calibration = request.recipe, request.accelerator, request.calibration
    accelerator.rate(request.compute_dtype)
    # Seconds, at the full context and averaged over ARC's lengths.
    traces = {n: as_run(trace, recipe, accelerator, request.compute_dtype) for n, trace in traces.items()}
    trace = traces[request.context]
    seconds = seconds_by_length(traces, accelerator, calibration)
    micro_s, mean_s = seconds(request.context), request.lengths.mean_over(seconds, request.context)
    update_s = update_seconds(trace, recipe, accelerator, calibration) + _all_reduce_s(trace, recipe)
    cache = cache_size(request.spec.architecture, 4 if request.compute_dtype == "fp32" else 2)
    log_sigma, caveats = _uncertainty(trace, micro_s, request)
    answers = answering.predicted(trace, accelerator, calibration, cache, request.context, log_sigma)
    # Bytes. Of a split model the last card holds the logits, and every card its share of the rest.
    allocator, memory = calibration.allocator, trace.memory
    transient = allocator.held(memory.transient, request.compute_dtype == "fp32")
    overhead = _base_bytes(accelerator, calibration)
    # In the update, logits and activations are gone.
    logits = held_logits(memory.logits, accelerator.kind)
    held, update = transient / recipe.layer_split + logits, memory.update / recipe.layer_split
    tensors = memory.persistent / recipe.layer_split + max(held, update)
    return Prediction(
        spec=request.spec,
        precision=request.precision,
        compute_dtype=request.compute_dtype,
        context=request.context,
        recipe=recipe,
        accelerator=accelerator,
        trace=trace,
        micro_s=micro_s,
        step_s=recipe.micro_steps_per_step * micro_s + update_s,
        arc_step_s=recipe.micro_steps_per_step * mean_s + update_s if mean_s is not None else None,
        load_s=_LOAD_S + memory.weights / _LOAD_BYTES_PER_S,
        answers_s=answering.answers_s(answers, request.context) / recipe.data_parallel,
        answers=answers,
        peak_bytes=tensors + overhead,
        overhead_bytes=overhead + transient - memory.transient + logits - memory.logits + max(0, update - held),
        log_sigma=log_sigma,
        memory_log_sigma=calibration.memory_error,
        caveats=caveats,
        source=calibration.source,
        evidence=calibration.evidence,
        lengths=request.lengths,
    )


def _base_bytes(accelerator: Accelerator, calibration: Calibration) -> float:
    """What a process holds without a model: a card's context; a CPU's imports, whose size is that of torch's build."""
    if accelerator.kind == CUDA:
        return accelerator.context_bytes + calibration.allocator.base_bytes
    both = accelerator.context_bytes and calibration.imported_bytes
    moved = accelerator.context_bytes - calibration.imported_bytes if both else 0
    return max(0.0, calibration.allocator.base_bytes + moved)


def _all_reduce_s(trace: Trace, recipe: Recipe) -> float:
    """A ring over PCIe: each process sends and receives all gradients once."""
    return 2 * trace.memory.gradients / _LINK_BYTES_PER_S if recipe.data_parallel > 1 else 0.0


def _uncertainty(trace: Trace, micro_s: float, request: PredictRequest) -> tuple[float, tuple[str, ...]]:
    """The standard deviation of the logarithm of seconds, and what makes it larger than the calibration's own error."""
    accelerator, recipe, calibration = request.accelerator, request.recipe, request.calibration
    log_sigma, caveats = calibration.error, []
    if not calibration.points:
        host = roofline.host_share(roofline.nominal_seconds(trace, accelerator), calibration.slowdown)
        log_sigma = math.hypot(log_sigma, efficiency.HOST_LOG_SIGMA * host)
        return log_sigma, (f"nothing was measured on {accelerator.name} yet",)
    if recipe.implementation != calibration.step:
        caveats.append(f"{accelerator.name} is known by another step than {recipe.implementation}'s")
        log_sigma = math.hypot(log_sigma, _OTHER_STEP_LOG_SIGMA)
    # Beyond the range of the fit, the error grows with the number of doublings.
    reach = max(micro_s / calibration.seconds_high, calibration.seconds_low / micro_s)
    if reach > _TRUSTED_REACH:
        caveats.append(f"micro-steps over {_TRUSTED_REACH} times beyond those measured on {accelerator.name}")
        log_sigma = math.hypot(log_sigma, 0.1 * math.log2(reach))
    return log_sigma, tuple(caveats)
