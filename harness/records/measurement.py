"""The measurement of one cell: raw samples, bytes and counts; a failure is a row too. JSON in and out."""

from dataclasses import dataclass, field
from typing import Any

from harness.records.cell import MEASURING_RULE, Cell
from harness.records.stored import from_stored, to_stored

OK = "ok"
FAILURES = ("oom", "timeout", "crashed", "killed", "unsupported", "beyond_window", "too_slow", "skipped")


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of the matrix products for one sequence of n tokens: linear * n + quadratic * n**2.

    Counted on the real forward and backward (harness.predict.flops), never assumed. The quadratic part is attention.
    It is counted in full, as torch's FlopCounterMode does, although a causal kernel may skip the upper half.
    """

    forward_linear: float
    forward_quadratic: float
    backward_linear: float
    backward_quadratic: float

    def forward(self, tokens: float) -> float:
        return self.forward_linear * tokens + self.forward_quadratic * tokens**2

    def backward(self, tokens: float) -> float:
        return self.backward_linear * tokens + self.backward_quadratic * tokens**2

    def total(self, tokens: float) -> float:
        return self.forward(tokens) + self.backward(tokens)


@dataclass(frozen=True)
class MatmulSpeed:
    """FLOP/s that the probe of one dtype reached, for products in the shapes of the forward and of the backward."""

    forward: float
    backward: float
    native: bool

    @property
    def combined(self) -> float:
        """FLOP/s of a step with equal work in forward and backward, as LoRA on a frozen base has: harmonic mean."""
        return 2 / (1 / self.forward + 1 / self.backward)


@dataclass(frozen=True)
class Measurement:
    """One row of records.jsonl: a cell, its status, and the raw samples. A failure is a row too, with its reason."""

    key: str
    cell: Cell
    status: str
    reason: str = ""
    started: str = ""  # ISO 8601, UTC
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    rule: int = MEASURING_RULE
    seed: int = 0
    params: int | None = None
    trainable_params: int | None = None
    work: FlopCount | None = None
    rate: MatmulSpeed | None = None  # of the compute dtype, probed in the same sweep
    # Predictions made before measuring, kept so that predictor and device can be compared later.
    predicted_micro_s: float | None = None
    predicted_peak_bytes: int | None = None
    estimate_s: float | None = None  # of the smallest run: load, one warm-up and three micro-steps
    device_total_bytes: int | None = None
    load_s: float | None = None
    # Seconds per micro-step and per optimiser update, one sample each; warm-ups are stored but never averaged.
    warmup_micro_s: tuple[float, ...] = ()
    warmup_optimizer_s: tuple[float, ...] = ()
    micro_s: tuple[float, ...] = ()
    optimizer_s: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    kernels: str = ""  # those that ran: "attention=blocks pointwise=compiled"
    adapted: str = ""  # modules with an adapter: "q_proj k_proj v_proj o_proj"
    notes: tuple[str, ...] = ()  # sentences on how the model was made: "of attention o_proj alone is adapted here"
    # phase (imported, after_load, first_step, steady) -> kind (allocated, reserved, process, resident: peaks; current)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    wall_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the process held on the device; on a CPU, its resident memory."""
        kinds = ("process", "reserved", "resident")
        peaks = [phase[kind] for phase in self.memory.values() for kind in kinds if kind in phase]
        return max(peaks, default=None)

    @property
    def margin_bytes(self) -> int | None:
        if self.peak_bytes is None or self.device_total_bytes is None:
            return None
        return self.device_total_bytes - self.peak_bytes


def to_json(row: Measurement) -> dict[str, Any]:
    return {"kind": "measurement", **to_stored(row)}


def from_json(raw: Any) -> Measurement:
    """The `Measurement` that `to_json` wrote. Raises ValueError where `raw` is not one."""
    row = from_stored(raw, Measurement)
    if row.status != OK and row.status not in FAILURES:
        raise ValueError(f"unknown status {row.status!r}")
    return row
