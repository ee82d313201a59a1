"""From operations to seconds: each takes what its arithmetic or its bytes take, whichever is more, and a launch.

The roofline of Williams, Waterman and Patterson (2009), summed by kind of operation, so that what a device really
reaches can be fitted kind by kind (harness.predict.calibration). Knows no torch: a trace is read from its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from msgspec import Meta

from harness.catalog.accelerators import CPU, Accelerator
from harness.predict import tiles
from harness.predict.gemm_4bit import is_fused
from harness.records.measurement import FlopCount, Size

# Kinds of operation, by the names that calibrations and kept traces have.
GEMM, SKINNY_GEMM, ATTENTION = "product", "thin", "attention"
FUSED_4BIT = "product4bit"  # by a matrix that bitsandbytes keeps in 4 bits, unpacked while it is multiplied
BANDWIDTH, DEQUANTIZE, LAUNCH = "memory", "dequantize", "launch"
HOST = "host"  # launches that overlap with computing: a card's
_HALVES = ("bf16", "fp16")
KINDS = (GEMM, SKINNY_GEMM, FUSED_4BIT, ATTENTION, BANDWIDTH, DEQUANTIZE, LAUNCH, HOST)
_OPERATIONS = KINDS[:-2]
# Of the bytes between products of the plain operations that are traced, what fused kernels move: of a norm and its
# backward 10 of 90 per value, of a gate's 16 of 32, of additions all.
_FUSED_SHARE = 0.4
# Launches that bitsandbytes' Python takes as long as, beside those of its kernels: of a product by a 4-bit matrix, and
# of dequantising, which comes twice in its backward; measured on a CPU (bench.quantized_host, which says
# in which step's launches).
_PYTHON_LAUNCHES = {FUSED_4BIT: 3.5, DEQUANTIZE: 0.9}
ENGINE_SHARE = 0.35  # of a launch from Python: some 7 us where that takes 20
# Exponent of the norm of a card's and its host's seconds: the longer one, and some more where both are alike.
OVERLAP = 4


Dimension = Annotated[int, Meta(ge=1, le=2**40)]


@dataclass(frozen=True)
class Op:
    """`count` equal operations: FLOPs and bytes (read and written) of one. `kind` is one of KINDS but LAUNCH and HOST.

    `shape` is a product's: rows, outputs and inputs. The card decides by it how a 4-bit one is run (`as_run`).
    """

    kind: Annotated[str, Meta(pattern=f"^({'|'.join(_OPERATIONS)})$")]
    backward: bool
    dtype: str
    flops: Annotated[float, Meta(ge=0, le=1e20)]
    bytes: Annotated[float, Meta(ge=0, le=1e18)]
    count: Annotated[int, Meta(ge=0, le=10**8)]
    shape: tuple[Dimension, Dimension, Dimension] | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors at the moment of a micro-step when most are held, by what they are."""

    weights: Size = 0
    constants: Size = 0  # of quantisation
    adapters: Size = 0
    gradients: Size = 0
    optimizer: Size = 0
    activations: Size = 0  # made in the forward pass
    logits: Size = 0
    temporaries: Size = 0  # made in the backward pass
    update: Size = 0  # made by the optimiser while it updates, when the three above are gone

    @property
    def total(self) -> int:
        """The most that is held at once: within a micro-step, or in the update."""
        return self.persistent + max(self.transient + self.logits, self.update)

    @property
    def persistent(self) -> int:
        """What is held from the first step to the last, whatever the context."""
        return self.weights + self.constants + self.adapters + self.gradients + self.optimizer

    @property
    def transient(self) -> int:
        """What is made and let go of layer by layer, which leaves gaps; logits are made once, when most is held."""
        return self.activations + self.temporaries


@dataclass(frozen=True)
class Trace:
    """One micro-step of `sequences` sequences of `tokens` tokens, as harness.predict.op_trace saw it."""

    ops: tuple[Op, ...]
    memory: Memory
    params: Size
    trainable: Size
    sequences: Size
    tokens: Size
    by_engine: Size = 0  # of its operations, those that autograd's engine launches without Python
    work: FlopCount | None = None  # of one sequence, attention in full; None in traces of an older version

    @staticmethod
    def from_older(raw: dict[str, Any]) -> dict[str, Any]:
        """Traces that earlier versions kept have each operation as the list of its values."""
        names = [f.name for f in fields(Op)]
        if not isinstance(raw.get("ops"), list):
            return raw
        ops = [dict(zip(names, op, strict=False)) if isinstance(op, list) else op for op in raw["ops"]]
        return {**raw, "ops": ops}

    @property
    def flops(self) -> float:
        """Of all operations, forward and backward."""
        return sum(op.flops * op.count for op in self.ops)

    def computed_in(self, dtype: str) -> "Trace":
        """The trace with `dtype` where it has another of 16 bits: the operations are the same."""
        if dtype not in _HALVES:
            return self
        return replace(self, ops=tuple(replace(op, dtype=dtype) if op.dtype in _HALVES else op for op in self.ops))

    def with_fused_pointwise(self) -> "Trace":
        """The trace, which has the plain operations between products, as fused kernels run it."""
        ops = (replace(op, bytes=_FUSED_SHARE * op.bytes) if op.kind == BANDWIDTH else op for op in self.ops)
        return replace(self, ops=tuple(ops))


def as_run(ops: Sequence[Op], accelerator: Accelerator) -> list[Op]:
    """`ops` as `accelerator` runs them: a product by a 4-bit matrix in one kernel, or the matrix dequantised first."""
    run: list[Op] = []
    for op in ops:
        if op.kind != FUSED_4BIT or not op.shape or is_fused(accelerator, op.dtype, *op.shape):
            run.append(op)
        else:
            run += in_two_steps(op, op.shape)
    return run


def in_two_steps(op: Op, shape: tuple[int, int, int]) -> tuple[Op, Op]:
    """A FUSED_4BIT operation of this shape as dequantising and a product: what bitsandbytes before 0.50 always did."""
    # Half a byte per value is read and unpacked into a buffer, which the product reads.
    values = shape[1] * shape[2]
    packed, unpacked = values // 2, values * (4 if op.dtype == "fp32" else 2)
    dequantize = replace(op, kind=DEQUANTIZE, flops=0.0, bytes=packed + unpacked, shape=None)
    return dequantize, replace(op, kind=GEMM, bytes=op.bytes - packed + unpacked)


def nominal_seconds(trace: Trace, accelerator: Accelerator) -> dict[str, float]:
    """Seconds by kind at the accelerator's nominal figures, forward and backward of one micro-step.

    What is bound by its bytes counts as BANDWIDTH, except dequantising. A card's products are as fast as their shape
    fills its processors (harness.predict.tiles). On a CPU launches add up; on a card they overlap with computing, and
    are HOST. Raises UserError for a dtype that the accelerator lacks.
    """
    processors = tiles.processors_of(accelerator)
    launched = LAUNCH if accelerator.kind == CPU else HOST
    nominal = dict.fromkeys(KINDS, 0.0)
    for op in as_run(trace.ops, accelerator):
        # The roofline: an operation takes what its FLOPs or its bytes take, whichever is more.
        by_bytes = op.bytes / accelerator.bandwidth
        by_flops = op.flops / accelerator.rate(op.dtype)[op.backward] if op.flops else 0.0
        if processors and op.shape and op.kind == GEMM and op.dtype in _HALVES:
            by_flops *= tiles.idle_factor(*op.shape, processors)
        kind = op.kind if op.kind == DEQUANTIZE or by_flops >= by_bytes else BANDWIDTH
        seconds = max(by_flops, by_bytes)
        nominal[kind] += seconds * op.count
        nominal[launched] += accelerator.launch_s * op.count
    if launched == HOST:
        python = sum(_PYTHON_LAUNCHES.get(op.kind, 0.0) * op.count for op in trace.ops)
        fewer = (1 - ENGINE_SHARE) * trace.by_engine
        nominal[HOST] = max(0.0, nominal[HOST] + accelerator.launch_s * (python - fewer))
    return nominal


def seconds(nominal: Mapping[str, float], slowdown: Mapping[str, float]) -> float:
    """`nominal` seconds by kind, each times how much slower than that the device is; HOST overlaps with the rest."""
    device_s = sum(nominal[kind] * slowdown[kind] for kind in KINDS if kind != HOST)
    host_s = nominal[HOST] * slowdown[HOST]
    return (device_s**OVERLAP + host_s**OVERLAP) ** (1 / OVERLAP) if host_s else device_s


def host_share(nominal: Mapping[str, float], slowdown: Mapping[str, float]) -> float:
    """How much of a card's seconds are the interpreter's: 0 where it never waits for it, 1 where it always does."""
    return (nominal[HOST] * slowdown[HOST] / seconds(nominal, slowdown)) ** OVERLAP
