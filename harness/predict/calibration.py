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

from harness.catalog import accelerators, efficiency
from harness.catalog.accelerators import CPU, CUDA, Accelerator
from harness.errors import UserError, first_line
from harness.files import read_json, replace_atomically
from harness.predict import roofline
from harness.predict.allocator import Allocator, MemoryPoint, fit_memory, memory_left_out
from harness.predict.roofline import FUSED_4BIT, HOST, KINDS, OVERLAP
from harness.records.cell import OPTIMIZED
from harness.records.measurement import Duration, Flops, Size
from harness.records.stored import from_stored, to_stored

# What a number rests on, the best first.
MEASURED_HERE, MEASURED_ELSEWHERE = "measured here", "measured elsewhere on such a device"
FITTED, SPECIFICATION = "fitted from other cards", "specification only"
EVIDENCE = (MEASURED_HERE, MEASURED_ELSEWHERE, FITTED, SPECIFICATION)
# What a calibration from a file may say.
_Factor = Annotated[float, Meta(gt=0, le=1e6)]
_Spread = Annotated[float, Meta(ge=0, le=10)]  # of logarithms

# Standard deviations of logarithms: of the prior, and of a measured cell's seconds.
_PRIOR_LOG_SIGMA = 0.25
MEASURED_LOG_SIGMA = 0.03  # how much a shared machine drifts within minutes


@dataclass(frozen=True)
class Point:
    """A micro-step that was timed: nominal seconds by kind, seconds, and the relative error of those."""

    model: str
    nominal: Mapping[str, float]
    seconds: float
    log_sigma: float = MEASURED_LOG_SIGMA


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
    imported_bytes: Size = 0  # of a CPU's base, what the imports took where it was fitted
    fragmentation: _Factor = 1.0
    fragmentation_fp32: _Factor | None = None  # as the other, where an older version fitted
    memory_error: _Spread = 0.1
    models: tuple[str, ...] = ()
    points: Size = 0
    seconds_low: Duration = 0.0  # of the fitted micro-steps
    seconds_high: Duration = 0.0
    source: str = ""
    step: str = OPTIMIZED  # whose step was measured: a recipe's implementation
    evidence: str = MEASURED_HERE  # one of EVIDENCE
    nominal: Accelerator | None = None  # whose figures it is relative to, where no catalogue has it

    @property
    def allocator(self) -> Allocator:
        return Allocator(self.base_bytes, self.fragmentation, self.fragmentation_fp32 or self.fragmentation)


def prior(kind: str, accelerator: Accelerator | None = None) -> Calibration:
    """What is assumed of `accelerator`, or of any device of `kind`, as long as nothing was measured on it."""
    slowdown = efficiency.slowdowns(accelerator, kind)
    known = accelerator is not None and efficiency.is_fitted(accelerator)
    return Calibration(
        device="",
        kind=kind,
        slowdown=slowdown,
        error=efficiency.FITTED_LOG_SIGMA if known else efficiency.SPECIFICATION_LOG_SIGMA,
        fragmentation=1.1,
        memory_error=efficiency.MEMORY_LOG_SIGMA,
        source="published training steps, results/reference/published" if known else "nothing measured",
        evidence=FITTED if known else SPECIFICATION,
    )


def _assumed(kind: str, device: str, nominal: Accelerator | None) -> dict[str, float]:
    """The slowdowns that are assumed of the device called `device`, whose figures may be `nominal`."""
    return efficiency.slowdowns(nominal or accelerators.ACCELERATORS.get(device), kind)


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
    assumed = _assumed(kind, device, nominal)
    misses = [math.log(p.seconds / roofline.seconds(p.nominal, slow)) for p, slow in left_out(kind, points, assumed)]
    memory_misses = [math.log(p.peak / fitted.peak(p)) for p, fitted in memory_left_out(kind, processes)]
    allocator = fit_memory(processes, kind)
    return Calibration(
        device=device,
        kind=kind,
        slowdown=fit_slowdown(assumed, points),
        error=max(0.05, _rms(misses)),
        base_bytes=allocator.base_bytes,
        fragmentation=allocator.fragmentation,
        fragmentation_fp32=allocator.fragmentation_fp32,
        memory_error=max(0.02, _rms(memory_misses)) if processes else efficiency.MEMORY_LOG_SIGMA,
        models=tuple(sorted({p.model for p in points})),
        points=len(points),
        seconds_low=min(p.seconds for p in points),
        seconds_high=max(p.seconds for p in points),
        source=source,
        step=step,
        nominal=nominal,
    )


def left_out(
    kind: str, points: Sequence[Point], assumed: Mapping[str, float] | None = None
) -> list[tuple[Point, dict[str, float]]]:
    """Each point with the slowdowns that are fitted on the other models' points, beginning at the `assumed` ones."""
    start = assumed or efficiency.slowdowns(kind=kind)
    fits = {m: fit_slowdown(start, [p for p in points if p.model != m]) for m in {p.model for p in points}}
    return [(p, fits[p.model]) for p in points]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else 0.0


def fit_slowdown(
    assumed: Mapping[str, float], points: Sequence[Point], sigmas_by_kind: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Slowdown by kind: the mode of the posterior of its logarithm, by damped Gauss-Newton from the `assumed` ones.

    `sigmas_by_kind` are the standard deviations of the assumed logarithms, by default the same for all.
    """
    import numpy as np

    if not points:
        return dict(assumed)
    # In logarithms, for slowdowns are positive and errors are factors.
    prior_logs = np.log([assumed[k] for k in KINDS])
    host = np.array([k == HOST for k in KINDS])
    nominal = np.array([[p.nominal[k] for k in KINDS] for p in points])  # [points, kinds]
    logs, sigmas = np.log([p.seconds for p in points]), np.array([p.log_sigma for p in points])
    prior_sigmas = np.array([(sigmas_by_kind or {}).get(k, _PRIOR_LOG_SIGMA) for k in KINDS])
    theta, prior_rows = prior_logs.copy(), np.diag(1 / prior_sigmas)
    for _ in range(100):
        parts = nominal * np.exp(theta)
        # As roofline.seconds: host and device overlap, and d log(total) = (own / total) ** OVERLAP d log(own).
        device = parts[:, ~host].sum(1)
        total = (device**OVERLAP + parts[:, host].sum(1) ** OVERLAP) ** (1 / OVERLAP)
        own = np.where(host, parts, device[:, None])
        shares = np.where(host, 1.0, parts / device[:, None]) * (own / total[:, None]) ** OVERLAP
        # Residuals over their standard deviations, of the points and of the prior, and their slopes in theta.
        slopes = np.vstack([shares / sigmas[:, None], prior_rows])
        residuals = np.concatenate([(logs - np.log(total)) / sigmas, (prior_logs - theta) / prior_sigmas])
        step = np.linalg.lstsq(slopes, residuals, rcond=None)[0]
        theta = theta + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-6:
            break
    return dict(zip(KINDS, map(float, np.exp(theta)), strict=True))


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Raises UserError where it cannot be written; an older file is then as it was."""
    replace_atomically(path, json.dumps(to_stored(calibration), indent=1) + "\n")


def load_calibration(path: Path) -> Calibration:
    """Raises UserError where the file is no calibration."""
    try:
        calibration = from_stored(read_json(path), Calibration)
        if calibration.kind not in (CUDA, CPU):
            raise ValueError("kind")
        # A kind that earlier versions did not tell apart has what is assumed of any device.
        assumed = _assumed(calibration.kind, calibration.device, calibration.nominal)
        later = {kind: assumed[kind] for kind in (FUSED_4BIT, HOST)}
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
