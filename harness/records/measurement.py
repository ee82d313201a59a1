"""The measurement of one cell: raw samples, bytes and counts; a failure is a row too. JSON in and out."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from harness.records.cell import MEASURING_RULE, Cell
from harness.records.stored import from_stored, to_stored
from harness.text import quoted

OK = "ok"
# What a device can have taken, held or done; anything else in a file is no measurement.
Duration = Annotated[float, Meta(ge=0, le=1e15)]  # seconds, some of them predicted
Sample = Annotated[float, Meta(gt=0, le=1e9)]  # seconds of something that was timed
Size = Annotated[int, Meta(ge=0, le=2**60)]  # bytes, or parameters
Flops = Annotated[float, Meta(ge=0, le=1e30)]
Cores = Annotated[float, Meta(ge=0, le=1e6)]
Rate = Annotated[float, Meta(ge=1, le=1e30)]  # per second
Count = Annotated[int, Meta(ge=1, le=10**6)]
# Cores that others take from a program's threads. At 0.3 of one thread's core a step takes at most 1 / (1 - 0.3) = 1.4
# times as long. Where nothing runs a few hundredths are used, beside a desktop or a notebook's server a tenth or two.
CROWDING = 0.3
# The note of a row that was sampled beside others; how much they used is in `others_cpu` and `steal`.
CROWDED = "timed while others used its cores: seconds are too long; measure again with --fresh"
# The driver's context with the libraries' kernels and cuBLAS's workspaces: an H100 shows 0.5 GiB, older cards less.
CONTEXT_BYTES = int(0.45 * 2**30)
NATIVE_FACTOR = 1.2  # times fp32's rate; hardware 16-bit is 2 to 15 times as fast, emulation at best on a par
FAILURES = ("oom", "timeout", "crashed", "killed", "unsupported", "beyond_window", "too_slow", "skipped")


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of the matrix products for one sequence of n tokens: linear * n + quadratic * n**2.

    Counted on the real forward and backward (harness.predict.flops), never assumed. The quadratic part is attention.
    It is counted in full, as torch's FlopCounterMode does, although a causal kernel may skip the upper half.
    """

    forward_linear: Flops
    forward_quadratic: Flops
    backward_linear: Flops
    backward_quadratic: Flops

    def forward(self, tokens: float) -> float:
        return self.forward_linear * tokens + self.forward_quadratic * tokens**2

    def backward(self, tokens: float) -> float:
        return self.backward_linear * tokens + self.backward_quadratic * tokens**2

    def total(self, tokens: float) -> float:
        return self.forward(tokens) + self.backward(tokens)


@dataclass(frozen=True)
class MatmulSpeed:
    """FLOP/s that the probe of one dtype reached, for products in the shapes of the forward and of the backward."""

    forward: Rate
    backward: Rate
    native: bool

    @property
    def combined(self) -> float:
        """FLOP/s of a step with equal work in forward and backward, as LoRA on a frozen base has: harmonic mean."""
        return 2 / (1 / self.forward + 1 / self.backward)


@dataclass(frozen=True)
class CardState:
    """What a card says of itself; None where it does not. `throttle` names what holds its clock down."""

    sm_mhz: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    celsius: Annotated[float, Meta(ge=-300, le=1e4)] | None = None
    watts: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    throttle: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictedAnswers:
    """What answering takes on this device, as predicted before the cell ran: seconds per token of a question that is
    read, per token of an answer, and of the steps of decoding per token, which up to `rows` answers share.
    `log_sigma` is the standard deviation of the logarithm of all three."""

    question_token_s: Duration
    answer_token_s: Duration
    step_s: Duration
    rows: Count
    log_sigma: Annotated[float, Meta(ge=0, le=100)]

    def seconds(self, question: float, answer: float, together: int) -> float:
        """Seconds per question of `question` tokens with `answer` tokens, of which `together` can be asked at once."""
        shared_s = self.step_s / max(1, min(together, self.rows))
        return self.question_token_s * question + answer * (self.answer_token_s + shared_s)


@dataclass(frozen=True)
class Place:
    """Where in a cluster a row was made: the machine's name, the numbers of its cards there, and which try it was."""

    host: str
    card: str = ""
    attempt: Annotated[int, Meta(ge=1, le=10**6)] = 1


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
    # On a card: what its numbers depend on besides the libraries (harness.hardware.card_environment).
    environment: dict[str, str] = field(default_factory=dict)
    rule: int = MEASURING_RULE
    seed: int = 0
    params: Size | None = None
    trainable_params: Size | None = None
    work: FlopCount | None = None
    rate: MatmulSpeed | None = None  # of the compute dtype, probed in the same sweep
    bandwidth: Rate | None = None  # bytes per second of a copy within a card's memory, probed likewise
    # Predictions made before measuring, kept so that predictor and device can be compared later.
    predicted_micro_s: Duration | None = None
    predicted_peak_bytes: Size | None = None
    estimate_s: Duration | None = None  # of the smallest run: load, one warm-up and three micro-steps
    device_total_bytes: Size | None = None
    load_s: Duration | None = None
    # Seconds per micro-step and per optimiser update, one sample each; warm-ups are stored but never averaged.
    warmup_micro_s: tuple[Duration, ...] = ()
    warmup_optimizer_s: tuple[Duration, ...] = ()
    micro_s: tuple[Sample, ...] = ()
    optimizer_s: tuple[Duration, ...] = ()
    losses: tuple[float, ...] = ()
    kernels: str = ""  # those that ran: "attention=blocks pointwise=compiled"
    adapted: str = ""  # modules with an adapter: "q_proj k_proj v_proj o_proj"
    notes: tuple[str, ...] = ()  # sentences on how the model was made: "of attention o_proj alone is adapted here"
    # phase (imported, after_load, first_step, steady) -> kind (allocated, reserved, process, resident: peaks; current)
    memory: dict[str, dict[str, Size]] = field(default_factory=dict)
    wall_s: Duration | None = None
    # Cores that others used while it was sampled, on average, and of these what a hypervisor gave to other machines.
    others_cpu: Cores | None = None
    steal: Cores | None = None
    # On a card: seconds of the cell's own steps before sampling, and its state before and after sampling.
    soak_s: Duration | None = None
    card: tuple[CardState, ...] = ()
    # Whole optimiser steps over sequences of ARC's lengths, packed as a fine-tune packs them: seconds and tokens per
    # step, and the most tokens that were packed together.
    arc_step_s: tuple[Sample, ...] = ()
    arc_step_tokens: tuple[Size, ...] = ()
    arc_pack_tokens: Size | None = None
    # Cards of this name on the machine, this one included; and what answers would take on it. Older rows have neither.
    cards: Count = 1
    answering: PredictedAnswers | None = None
    # The micro-batch that the key is of, where memory did not suffice for it: the cell has the one that was measured.
    requested_micro_batch: Size | None = None
    place: Place | None = None  # in a cluster

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
        raise ValueError(f"unknown status {quoted(row.status)}")
    if row.ok and not (row.micro_s and row.optimizer_s):
        raise ValueError("an ok row without samples")
    if row.cell.recipe.micro_steps_per_step < 1:
        raise ValueError("a step of less than one micro-step")
    return row
