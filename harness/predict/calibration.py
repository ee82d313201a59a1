"""How far a device stays below its nominal figures, fitted on what was measured there.

Seconds are sum over kinds of nominal seconds x slowness (harness.predict.roofline). The slownesses are fitted in their
logarithms by Gauss-Newton, each with a prior from the field's experience that many measurements outweigh and one
does not: so a single published row moves a prediction, and forty measured cells make it. The error that a prediction
states is that of leaving out each model in turn.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.catalog.accelerators import CPU, CUDA
from harness.errors import UserError
from harness.files import replace_atomically
from harness.predict import roofline
from harness.predict.roofline import ATTENTION, BANDWIDTH, DEQUANTIZE, GEMM, KINDS, LAUNCH, SKINNY_GEMM
from harness.records.cell import OPTIMIZED

# How much slower than nominal a kind is where nothing is known of the device: large products reach half of a
# datasheet's rate, memory four fifths of its bandwidth. _PRIOR_SIGMA is of the logarithm of what this may be off by.
_PRIOR = {
    CUDA: {GEMM: 2.0, SKINNY_GEMM: 4.0, ATTENTION: 3.0, BANDWIDTH: 1.25, DEQUANTIZE: 2.0, LAUNCH: 1.0},
    CPU: {GEMM: 1.1, SKINNY_GEMM: 2.0, ATTENTION: 2.0, BANDWIDTH: 1.5, DEQUANTIZE: 4.0, LAUNCH: 1.0},
}
_PRIOR_SIGMA = 0.5
_MEASURED_SIGMA = 0.03  # of a measured cell: what minutes of a shared machine drift by, or the middle of three sweeps


@dataclass(frozen=True)
class Point:
    """A micro-step that was timed: nominal seconds by kind, seconds, and the relative error of those."""

    model: str
    nominal: Mapping[str, float]
    seconds: float
    sigma: float = _MEASURED_SIGMA


@dataclass(frozen=True)
class MemoryPoint:
    """A process that was measured: bytes of the trace that stand (logits with them) and that pass, its peak; `wide` if
    it computed in fp32."""

    model: str
    standing: int
    passing: int
    peak: int
    wide: bool = False


@dataclass(frozen=True)
class Allocator:
    """Bytes that a process holds besides its tensors, and how many times those that pass it holds, computing in 16 bits
    and in fp32, whose larger tensors leave larger gaps."""

    base_bytes: float
    spread: float
    spread_fp32: float

    def passing(self, size: float, wide: bool) -> float:
        return size * (self.spread_fp32 if wide else self.spread)

    def peak(self, of: MemoryPoint) -> float:
        return self.base_bytes + of.standing + self.passing(of.passing, of.wide)


@dataclass(frozen=True)
class Calibration:
    """What a device reaches, and what it was fitted on.

    `slowness` by kind; `error` the standard deviation of the log of measured over predicted seconds with the row's
    model left out. Of memory what Allocator has.
    """

    device: str
    kind: str
    slowness: dict[str, float]
    error: float
    base_bytes: float = 0.0
    spread: float = 1.0
    spread_fp32: float | None = None  # as the other, where an older version fitted
    memory_error: float = 0.1
    models: tuple[str, ...] = ()
    points: int = 0
    seconds_low: float = 0.0  # of the fitted micro-steps
    seconds_high: float = 0.0
    source: str = ""
    step: str = OPTIMIZED  # whose step was measured: a recipe's implementation
    nominal: dict[str, Any] | None = None  # the accelerator whose figures it is relative to, where no catalogue has it

    @property
    def allocator(self) -> Allocator:
        return Allocator(self.base_bytes, self.spread, self.spread_fp32 or self.spread)


def prior(kind: str) -> Calibration:
    """What is assumed of a device that nothing was measured on: seconds within a factor of 2.2 (95 %)."""
    return Calibration("", kind, dict(_PRIOR[kind]), 0.4, spread=1.1, source="what is assumed of any")


def fit(
    device: str,
    kind: str,
    points: Sequence[Point],
    held: Sequence[MemoryPoint] = (),
    source: str = "",
    step: str = OPTIMIZED,
    nominal: dict[str, Any] | None = None,
) -> Calibration:
    """The calibration on all `points` and `held`, its errors by leaving out each model.

    Raises UserError without points.
    """
    if not points:
        raise UserError(f"nothing measured to calibrate {device} by; run `harness bench` first")
    misses = [math.log(p.seconds / roofline.seconds(p.nominal, slow)) for p, slow in left_out(kind, points)]
    allocator = fit_memory(held, kind)
    memory = [math.log(m.peak / fitted.peak(m)) for m, fitted in memory_left_out(kind, held)]
    return Calibration(
        device,
        kind,
        _fitted(kind, points),
        max(0.05, _rms(misses)),
        allocator.base_bytes,
        allocator.spread,
        allocator.spread_fp32,
        max(0.02, _rms(memory)) if held else 0.1,
        tuple(sorted({p.model for p in points})),
        len(points),
        min(p.seconds for p in points),
        max(p.seconds for p in points),
        source,
        step,
        nominal,
    )


def left_out(kind: str, points: Sequence[Point]) -> list[tuple[Point, dict[str, float]]]:
    """Each point with the slownesses that are fitted on the other models' points."""
    fits = {m: _fitted(kind, [p for p in points if p.model != m]) for m in {p.model for p in points}}
    return [(p, fits[p.model]) for p in points]


def memory_left_out(kind: str, held: Sequence[MemoryPoint]) -> list[tuple[MemoryPoint, Allocator]]:
    """Each process with what is fitted on the other models' ones."""
    fits = {m: fit_memory([h for h in held if h.model != m], kind) for m in {h.model for h in held}}
    return [(h, fits[h.model]) for h in held]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else 0.0


def _fitted(kind: str, points: Sequence[Point]) -> dict[str, float]:
    """Slowness by kind: the mode of the posterior of its logarithm, by damped Gauss-Newton."""
    start = np.log([_PRIOR[kind][k] for k in KINDS])
    if not points:
        return dict(_PRIOR[kind])
    nominal = np.array([[p.nominal[k] for k in KINDS] for p in points])
    logs, sigmas = np.log([p.seconds for p in points]), np.array([p.sigma for p in points])
    theta, weight = start.copy(), np.eye(len(KINDS)) / _PRIOR_SIGMA
    for _ in range(100):
        parts = nominal * np.exp(theta)
        total = parts.sum(1)
        slopes = np.vstack([parts / total[:, None] / sigmas[:, None], weight])
        missed = np.concatenate([(logs - np.log(total)) / sigmas, (start - theta) / _PRIOR_SIGMA])
        step = np.linalg.lstsq(slopes, missed, rcond=None)[0]
        theta = theta + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-6:
            break
    return dict(zip(KINDS, map(float, np.exp(theta)), strict=True))


def fit_memory(held: Sequence[MemoryPoint], kind: str) -> Allocator:
    """The base and spreads of peak = base + standing + spread x passing that miss least relatively.

    Without two processes to fit on: nothing more than the tensors on a card, half a GiB of libraries on a CPU. With
    fewer than two of either width, one spread for both.
    """
    if len(held) < 2:
        return Allocator(0.0, 1.1, 1.1) if kind == CUDA else Allocator(0.5 * 2**30, 1.3, 1.3)
    wide = np.array([m.wide for m in held])
    groups = [~wide, wide] if min(wide.sum(), (~wide).sum()) > 1 else [np.ones(len(held), bool)]
    peaks, passing = np.array([m.peak for m in held], float), np.array([m.passing for m in held])
    columns = np.stack([np.ones(len(held)), *(passing * group for group in groups)], 1) / peaks[:, None]
    wanted = 1 - np.array([m.standing for m in held]) / peaks
    norm = np.linalg.norm(columns, axis=0)
    base, *spreads = np.linalg.lstsq(columns / norm, wanted, rcond=None)[0] / norm
    return Allocator(*(float(max(least, found)) for least, found in ((0, base), (1, spreads[0]), (1, spreads[-1]))))


def write(found: Calibration, path: Path) -> None:
    """Raises UserError where it cannot be written; an older file is then as it was."""
    replace_atomically(path, json.dumps(asdict(found), indent=1) + "\n")


def read(path: Path) -> Calibration:
    """Raises UserError where the file is no calibration."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        found = Calibration(**{**said, "models": tuple(said["models"])})
        if set(found.slowness) != set(KINDS) or found.kind not in _PRIOR:
            raise ValueError("kinds")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{path} is no calibration ({problem}); make it anew with `harness calibrate`") from None
    return found
