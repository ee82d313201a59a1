"""Training steps that others published (results/reference/published/steps.csv), each predicted exactly as it was run.

A row has a card, a model (models.json), a recipe, and seconds, peak memory or both. Its class says how near the program
can come to what was run: exact, near (other kernels, or a setting that is inferred) or rough (lengths assumed, or a
framework of its own).
"""

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.kept_traces import KeptTraces
from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import Accelerator
from harness.catalog.optimizers import FOREACH, MASTERS
from harness.errors import UserError, first_line
from harness.predict import prediction, varied_lengths
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction, PredictRequest
from harness.predict.roofline import BANDWIDTH, DEQUANTIZE, FUSED_4BIT, HOST, Op, Trace, in_two_steps
from harness.predict.trace_pool import TraceKey
from harness.records.cell import REFERENCE, ModelSpec, Recipe

PUBLISHED = Path(__file__).parents[1] / "results" / "reference" / "published"
CLASSES = ("exact", "near", "rough")
_RULE_SHARE = 0.4  # of the peak, in the one-line rule
# Bytes read and written per value by AutoGPTQ 0.4's QuantLinear (qlinear_cuda_old): the packed value (0.5), shifted
# into int32 (4), narrowed to int8 (4 + 1), masked (1 + 1), less the zero (1 + 1), times the scale (1 + 2).
_GPTQ_BYTES = 16.5
# And its operations beside that: of the zeros, shifted, narrowed, masked and one added, and of the weights, shifted,
# narrowed, masked and less the zeros; the product by the scale is the one that is counted.
_GPTQ_LAUNCHES = 8
# Qwen's first models: queries, keys and values are one product, and so one adapter. No model of transformers has that
# beside an MLP in three parts: Qwen2's has seven products per layer and Phi-3's four, where theirs has five.
_FUSED_QKV = ("qwen-1.8b", "qwen-7b", "qwen-14b", "qwen-72b")
# Of the interpreter's time per micro-step, DeepSpeed's ZeRO-3 over the same step without it, every layer recomputed in
# both: measured on a CPU, a card's launches added (bench.zero3_host).
_ZERO3_HOST = 4.0
_FUSED_LOGITS = 0.5  # of the bytes of plain logits: once in 16 bits, once in fp32, and gradients in place


@dataclass(frozen=True, kw_only=True)
class PublishedStep:
    """One row. `seconds` are of a `per`: "step", "micro" (micro-step) or "sample". `gib` is the peak of what `peak_of`
    names: "allocated" (tensors) or "reserved" (with the allocator's gaps). `zero3`: DeepSpeed's ZeRO-3 steps. `varied`:
    its sequences have many lengths, and torch's allocator its default settings. `out_of_memory` is None where it is not
    told."""

    name: str
    source: str
    comparable: str  # one of CLASSES
    spec: ModelSpec
    precision: precisions.Precision
    recipe: Recipe
    context: int
    accelerator: Accelerator
    seconds: float | None
    per: str
    gib: float | None
    peak_of: str
    gptq: bool
    fused: bool
    zero3: bool
    varied: bool
    lengths_assumed: bool
    out_of_memory: bool | None

    def request(self, calibration: Calibration) -> PredictRequest:
        return PredictRequest(
            spec=self.spec,
            precision=self.precision,
            recipe=self.recipe,
            context=self.context,
            accelerator=self.accelerator,
            calibration=calibration,
        )

    @property
    def trace_key(self) -> TraceKey:
        """Of the row's own length alone: its lengths are not ARC's."""
        return prediction.trace_key(self.spec, self.precision, self.recipe, self.accelerator, self.context)

    def seconds_of(self, predicted: Prediction) -> float:
        """The predicted seconds of what the row's seconds are of."""
        if self.per == "step":
            return predicted.step_s
        return predicted.micro_s / (self.recipe.micro_batch if self.per == "sample" else 1)

    def as_run_by(self, assumed: Calibration) -> Calibration:
        """`assumed` of the row's card, with what its program takes of the interpreter."""
        slower = {**assumed.slowdown, HOST: assumed.slowdown[HOST] * _ZERO3_HOST}
        return replace(assumed, slowdown=slower) if self.zero3 else assumed

    def gib_of(self, predicted: Prediction) -> tuple[float, float]:
        """The predicted peak of what the row's peak is of, and the factor of its interval; neither has the driver's
        context."""
        factor = math.exp(1.96 * predicted.memory_log_sigma)
        if self.peak_of == "allocated":
            return predicted.trace.memory.total / 2**30, factor
        if self.varied:
            kept = varied_lengths.reserved(predicted)
            return (kept.size - self.accelerator.context_bytes) / 2**30, kept.factor
        return (predicted.peak_bytes - self.accelerator.context_bytes) / 2**30, factor

    def rule_seconds(self, params: int) -> float:
        """The one-line rule: 6 x parameters x tokens at 40 % of the card's peak."""
        micro_s = 6 * params * self.recipe.micro_batch * self.context / (_RULE_SHARE * self._peak())
        if self.per == "step":
            return self.recipe.micro_steps_per_step * micro_s
        return micro_s / (self.recipe.micro_batch if self.per == "sample" else 1)

    def _peak(self) -> float:
        return self.accelerator.rate(prediction.compute_of(self.precision, self.accelerator))[0]


def read(rows: Path = PUBLISHED / "steps.csv", models: Path = PUBLISHED / "models.json") -> list[PublishedStep]:
    """The rows of a table, with the shapes of its models. Columns on how the source trains may be missing."""
    shapes = json.loads(models.read_text(encoding="utf-8"))
    with rows.open(encoding="utf-8", newline="") as file:
        return [_step(_as_usual(raw) | raw, shapes[raw["model"]]) for raw in csv.DictReader(file)]


def of_user(rows: Path, models: Path) -> list[PublishedStep]:
    """The steps of a user's table. Raises SystemExit, with one line, where it is none."""
    remedy = "write the columns of results/reference/published/steps.csv, and a shape per model in --models"
    try:
        steps = read(rows, models)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as problem:
        lacks = f"lacks {problem}" if isinstance(problem, KeyError) else first_line(problem)
        raise SystemExit(f"{rows}: cannot be read ({lacks}); {remedy}") from None
    if not steps:
        raise SystemExit(f"{rows}: has no row; {remedy}")
    return steps


def _as_usual(raw: dict[str, str]) -> dict[str, str]:
    """How a row's program trains as far as its other columns tell it: as transformers' Trainer does, or with fused
    kernels where it stands for our step; a caveat may say otherwise."""
    caveat, gptq = raw["caveat"], "GPTQ" in raw["caveat"]
    # Unsloth has torch's allocator grow its blocks (expandable_segments; its __init__.py, 2024.9).
    narrow, trainer = re.search(r"(bf16|16-bit) adapters", caveat), raw["implementation"] == REFERENCE
    return {
        "adapter": "bf16" if narrow else "fp32",
        "optimizer": MASTERS if "fp32 masters" in caveat else FOREACH,
        "prepared": "yes" if trainer and raw["precision"] == "int4" and not gptq else "",
        "autocast": "yes" if trainer and not narrow else "",
        "four_bit": "gptq" if gptq else "",
        "pointwise": "fused" if "fused kernels" in caveat else "",
        "program": "unsloth" if "Unsloth" in caveat else "",
    }


def _step(raw: dict[str, str], architecture: dict[str, Any]) -> PublishedStep:
    recipe = Recipe(
        lora_r=int(raw["lora_r"]),
        lora_alpha=2 * int(raw["lora_r"]),
        lora_dropout=float(raw["dropout"]),
        lora_targets=raw["targets"],
        sequences_per_step=int(raw["sequences_per_step"]),
        micro_batch=int(raw["micro_batch"]),
        gradient_checkpointing=raw["checkpointing"],
        answer_share=float(raw["answer_share"]),
        implementation=raw["implementation"],
        data_parallel=int(raw["count"]) if raw["split"] == "data" else 1,
        method=raw["method"],
        prepared_for_kbit=raw["prepared"] == "yes",
        autocast=raw["autocast"] == "yes",
        adapter_dtype=raw["adapter"] or "fp32",
        optimizer=raw["optimizer"],
    )
    precision = precisions.find(raw["precision"])
    return PublishedStep(
        name=raw["id"],
        source=raw["source"],
        comparable=raw["comparable"],
        spec=ModelSpec(raw["model"], architecture, architecture["max_position_embeddings"]),
        precision=replace(precision, compute=raw["compute"]) if raw["compute"] else precision,
        recipe=recipe,
        context=int(raw["context"]),
        accelerator=accelerators.find(raw["accelerator"]),
        seconds=float(raw["measured_seconds"]) if raw["measured_seconds"] else None,
        per=raw["per"],
        gib=float(raw["measured_gib"]) if raw["measured_gib"] else None,
        peak_of=raw["peak_of"],
        gptq=raw["four_bit"] == "gptq",
        fused=raw["pointwise"] == "fused",
        zero3=raw["program"] == "zero3",
        varied=raw["lengths"] != "exact" and raw["program"] != "unsloth",
        lengths_assumed=raw["lengths"] == "assumed",
        out_of_memory={"yes": True, "no": False}.get(raw["oom"]),
    )


def traces(steps: Sequence[PublishedStep], kept: KeptTraces) -> dict[str, Trace]:
    """The trace of each row, by its name. Raises SystemExit for a row that cannot be traced."""
    made = _traced(steps, kept)
    fused = {step.name: _with_fused_qkv(step) for step in steps if step.seconds and step.spec.name in _FUSED_QKV}
    other = dict(zip(fused, _traced(list(fused.values()), kept), strict=True))
    return {
        step.name: _as_then(_between(trace, other[step.name]) if step.name in other else trace, step)
        for step, trace in zip(steps, made, strict=True)
    }


def _traced(steps: Sequence[PublishedStep], kept: KeptTraces) -> list[Trace]:
    traces = []
    for step, trace in zip(steps, kept.trace_all([step.trace_key for step in steps]), strict=True):
        if isinstance(trace, str):
            raise SystemExit(f"{step.name}: {trace}")
        traces.append(trace)
    return traces


def _with_fused_qkv(step: PublishedStep) -> PublishedStep:
    """The row with the layers of Phi-3 in the same shapes: one product for queries, keys and values, and one for both
    halves of the MLP's first."""
    spec = replace(step.spec, architecture={**step.spec.architecture, "model_type": "phi3", "pad_token_id": 0})
    targets = "qkv_proj" if step.recipe.lora_targets == "q_proj k_proj v_proj" else step.recipe.lora_targets
    return replace(step, spec=spec, recipe=replace(step.recipe, lora_targets=targets))


def _between(seven: Trace, four: Trace) -> Trace:
    """The operations of a model with five products per layer, by those of the same with seven and with four; memory is
    left as with seven, a hundredth more."""
    share = (5 - 4) / (7 - 4)
    parts = ((seven, share), (four, 1 - share))
    ops = tuple(replace(op, count=round(part * op.count)) for trace, part in parts for op in trace.ops)
    return replace(seven, ops=ops, by_engine=round(sum(part * trace.by_engine for trace, part in parts)))


def _as_then(trace: Trace, step: PublishedStep) -> Trace:
    """`trace` with 4-bit matrices widened before every product, as in all published rows: bitsandbytes' fused kernel is
    newer. AutoGPTQ's layer widens in several operations of torch, and keeps the matrix for the backward."""
    ops: list[Op] = []
    for op in trace.ops:
        if op.kind == FUSED_4BIT and op.shape:
            dequantize, product = in_two_steps(op, op.shape)
            values = op.shape[1] * op.shape[2]
            if step.gptq:
                dequantize = replace(dequantize, bytes=_GPTQ_BYTES * values)
                ops.append(replace(dequantize, kind=BANDWIDTH, bytes=0.0, count=_GPTQ_LAUNCHES * dequantize.count))
            ops += [dequantize, product]
        elif not (step.gptq and op.kind == DEQUANTIZE):
            ops.append(op)
    trace = replace(trace, ops=tuple(ops))
    if not (step.fused and step.recipe.implementation == REFERENCE):
        return trace
    # transformers' step with another's kernels; where our own step stands for theirs, it has fused ones anyway.
    logits = round(_FUSED_LOGITS * trace.memory.logits)
    return replace(trace.with_fused_pointwise(), memory=replace(trace.memory, logits=logits))
