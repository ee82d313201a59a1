"""How far a device stays below its nominal figures, fitted on what was measured there.

Seconds are sum over kinds of nominal seconds x slowdown (harness.predict.roofline). The slowdowns are fitted in their
logarithms by Gauss-Newton, each with a prior from the field's experience that many measurements outweigh and one
does not: so a single published row moves a prediction, and forty measured cells make it. The error that a prediction
states is that of leaving out each model in turn.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from harness.catalog.accelerators import CPU, CUDA, Accelerator
from harness.errors import UserError, first_line
from harness.files import read_json, replace_atomically
from harness.predict import roofline
from harness.predict.roofline import ATTENTION, BANDWIDTH, DEQUANTIZE, FUSED_4BIT, GEMM, KINDS, LAUNCH, SKINNY_GEMM
from harness.records.cell import OPTIMIZED
from harness.records.measurement import Duration, Flops, Size
from harness.records.stored import from_stored, to_stored

# What a calibration from a file may say.
_Factor = Annotated[float, Meta(gt=0, le=1e6)]
_Spread = Annotated[float, Meta(ge=0, le=10)]  # of logarithms

# How much slower than nominal a kind is where nothing is known of the device: large products reach half of a
# datasheet's rate, memory four fifths of its bandwidth.
_PRIOR = {
    CUDA: {GEMM: 2.0, SKINNY_GEMM: 4.0, FUSED_4BIT: 3.0, ATTENTION: 3.0, BANDWIDTH: 1.25, DEQUANTIZE: 2.0, LAUNCH: 1.0},
    CPU: {GEMM: 1.1, SKINNY_GEMM: 2.0, FUSED_4BIT: 1.1, ATTENTION: 2.0, BANDWIDTH: 1.5, DEQUANTIZE: 4.0, LAUNCH: 1.0},
}
# Standard deviations of logarithms: of the prior, and of a measured cell's seconds.
_PRIOR_LOG_SIGMA = 0.5
_MEASURED_LOG_SIGMA = 0.03  # how much a shared machine drifts within minutes


@dataclass(frozen=True)
class Point:
    """A micro-step that was timed: nominal seconds by kind, seconds, and the relative error of those."""

    model: str
    nominal: Mapping[str, float]
    seconds: float
    log_sigma: float = _MEASURED_LOG_SIGMA


@dataclass(frozen=True)
class MemoryPoint:
    """A measured process, in bytes: the persistent tensors (with logits) and the transient ones of its trace, and its
    peak. `fp32`: whether it computed in fp32."""

    model: str
    persistent: int
    transient: int
    peak: int
    fp32: bool = False


@dataclass(frozen=True)
class Allocator:
    """Fixed overhead of a process in bytes, and the fragmentation factor on transient tensors: in 16 bits, and in fp32,
    whose larger tensors leave larger gaps."""

    base_bytes: float
    fragmentation: float
    fragmentation_fp32: float

    def held(self, transient: float, fp32: bool) -> float:
        return transient * (self.fragmentation_fp32 if fp32 else self.fragmentation)

    def peak(self, process: MemoryPoint) -> float:
        return self.base_bytes + process.persistent + self.held(process.transient, process.fp32)


@dataclass(frozen=True)
class Calibration:
    """What a device reaches, and what it was fitted on.

    `slowdown` is by kind; `error` is the standard deviation of log(measured / predicted seconds) with the row's model
    left out. The memory fields are Allocator's.
    """

    STORED: ClassVar = {"slowdown": "slowness", "fragmentation": "spread", "fragmentation_fp32": "spread_fp32"}

    device: str
    kind: str
    slowdown: dict[str, _Factor]
    error: _Spread
    base_bytes: Flops = 0.0
    fragmentation: _Factor = 1.0
    fragmentation_fp32: _Factor | None = None  # as the other, where an older version fitted
    memory_error: _Spread = 0.1
    models: tuple[str, ...] = ()
    points: Size = 0
    seconds_low: Duration = 0.0  # of the fitted micro-steps
    seconds_high: Duration = 0.0
    source: str = ""
    step: str = OPTIMIZED  # whose step was measured: a recipe's implementation
    nominal: Accelerator | None = None  # whose figures it is relative to, where no catalogue has it

    @property
    def allocator(self) -> Allocator:
        return Allocator(self.base_bytes, self.fragmentation, self.fragmentation_fp32 or self.fragmentation)


def prior(kind: str) -> Calibration:
    """What is assumed of a device that nothing was measured on: seconds within a factor of 2.2 (95 %)."""
    return Calibration("", kind, dict(_PRIOR[kind]), 0.4, fragmentation=1.1, source="assumed, nothing measured")


def fit(
    device: str,
    kind: str,
    points: Sequence[Point],
    processes: Sequence[MemoryPoint] = (),
    source: str = "",
    step: str = OPTIMIZED,
    nominal: Accelerator | None = None,
) -> Calibration:
    """The calibration on all `points` and `processes`, its errors by leaving out each model.

    Raises UserError without points.
    """
    if not points:
        raise UserError(f"nothing measured to calibrate {device} by; run `harness bench` first")
    # Log errors for models that the fit has not seen.
    misses = [math.log(p.seconds / roofline.seconds(p.nominal, slowdown)) for p, slowdown in left_out(kind, points)]
    memory_misses = [math.log(p.peak / fitted.peak(p)) for p, fitted in memory_left_out(kind, processes)]
    allocator = fit_memory(processes, kind)
    return Calibration(
        device=device,
        kind=kind,
        slowdown=_fit_slowdown(kind, points),
        error=max(0.05, _rms(misses)),
        base_bytes=allocator.base_bytes,
        fragmentation=allocator.fragmentation,
        fragmentation_fp32=allocator.fragmentation_fp32,
        memory_error=max(0.02, _rms(memory_misses)) if processes else 0.1,
        models=tuple(sorted({p.model for p in points})),
        points=len(points),
        seconds_low=min(p.seconds for p in points),
        seconds_high=max(p.seconds for p in points),
        source=source,
        step=step,
        nominal=nominal,
    )


def left_out(kind: str, points: Sequence[Point]) -> list[tuple[Point, dict[str, float]]]:
    """Each point with the slowdowns that are fitted on the other models' points."""
    fits = {m: _fit_slowdown(kind, [p for p in points if p.model != m]) for m in {p.model for p in points}}
    return [(p, fits[p.model]) for p in points]


def memory_left_out(kind: str, processes: Sequence[MemoryPoint]) -> list[tuple[MemoryPoint, Allocator]]:
    """Each process with what is fitted on the other models' ones."""
    fits = {m: fit_memory([p for p in processes if p.model != m], kind) for m in {p.model for p in processes}}
    return [(p, fits[p.model]) for p in processes]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else 0.0


def _fit_slowdown(kind: str, points: Sequence[Point]) -> dict[str, float]:
    """Slowdown by kind: the mode of the posterior of its logarithm, by damped Gauss-Newton."""
    import numpy as np

    if not points:
        return dict(_PRIOR[kind])
    # In logarithms, for slowdowns are positive and errors are factors.
    prior_logs = np.log([_PRIOR[kind][k] for k in KINDS])
    nominal = np.array([[p.nominal[k] for k in KINDS] for p in points])  # [points, kinds]
    logs, sigmas = np.log([p.seconds for p in points]), np.array([p.log_sigma for p in points])
    theta, prior_rows = prior_logs.copy(), np.eye(len(KINDS)) / _PRIOR_LOG_SIGMA
    for _ in range(100):
        parts = nominal * np.exp(theta)
        total = parts.sum(1)
        # Residuals over their standard deviations, of the points and of the prior, and their slopes in theta.
        slopes = np.vstack([parts / total[:, None] / sigmas[:, None], prior_rows])
        residuals = np.concatenate([(logs - np.log(total)) / sigmas, (prior_logs - theta) / _PRIOR_LOG_SIGMA])
        step = np.linalg.lstsq(slopes, residuals, rcond=None)[0]
        theta = theta + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-6:
            break
    return dict(zip(KINDS, map(float, np.exp(theta)), strict=True))


def fit_memory(processes: Sequence[MemoryPoint], kind: str) -> Allocator:
    """The base and factors of peak = base + persistent + factor x transient that miss least relatively.

    Without two processes to fit on: nothing more than the tensors on a card, half a GiB of libraries on a CPU. With
    fewer than two in fp32, or in 16 bits, one factor for both.
    """
    import numpy as np

    # Too few for a fit: typical values.
    if len(processes) < 2:
        return Allocator(0.0, 1.1, 1.1) if kind == CUDA else Allocator(0.5 * 2**30, 1.3, 1.3)
    # One column per factor: fp32 apart from 16 bits where both have been measured.
    fp32 = np.array([p.fp32 for p in processes])
    groups = [~fp32, fp32] if min(fp32.sum(), (~fp32).sum()) > 1 else [np.ones(len(processes), bool)]
    peaks, transient = np.array([p.peak for p in processes], float), np.array([p.transient for p in processes])
    # Both sides over the peaks, so that every process counts alike; columns of norm 1, for bytes are large.
    columns = np.stack([np.ones(len(processes)), *(transient * group for group in groups)], 1) / peaks[:, None]
    remaining = 1 - np.array([p.persistent for p in processes]) / peaks
    norm = np.linalg.norm(columns, axis=0)
    norm[norm == 0] = 1  # nothing transient anywhere
    base, *factors = map(float, np.linalg.lstsq(columns / norm, remaining, rcond=None)[0] / norm)
    return Allocator(max(0.0, base), max(1.0, factors[0]), max(1.0, factors[-1]))


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Raises UserError where it cannot be written; an older file is then as it was."""
    replace_atomically(path, json.dumps(to_stored(calibration), indent=1) + "\n")


def load_calibration(path: Path) -> Calibration:
    """Raises UserError where the file is no calibration."""
    try:
        calibration = from_stored(read_json(path), Calibration)
        if calibration.kind not in _PRIOR:
            raise ValueError("kind")
        # A kind that earlier versions did not tell apart has what is assumed of any device.
        later = {FUSED_4BIT: _PRIOR[calibration.kind][FUSED_4BIT]}
        calibration = replace(calibration, slowdown=later | calibration.slowdown)
        if set(calibration.slowdown) != set(KINDS):
            raise ValueError("kinds")
        if calibration.points and not 0 < calibration.seconds_low <= calibration.seconds_high:
            raise ValueError("points without seconds")
    except (OSError, ValueError) as problem:
        raise UserError(
            f"{path} is no calibration ({first_line(problem)}); make it anew with `harness calibrate`"
        ) from None
    return calibration
