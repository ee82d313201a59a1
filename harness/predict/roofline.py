"""From operations to seconds: each takes what its arithmetic or its bytes take, whichever is more, and a launch.

The roofline of Williams, Waterman and Patterson (2009), summed by kind of operation, so that what a device really
reaches can be fitted kind by kind (harness.predict.calibration). Knows no torch: a trace is read from its file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from msgspec import Meta

from harness.catalog.accelerators import CPU, Accelerator
from harness.records.measurement import FlopCount, Size

# Kinds of operation, by the names that calibrations and kept traces have.
GEMM, SKINNY_GEMM, ATTENTION = "product", "thin", "attention"
BANDWIDTH, DEQUANTIZE, LAUNCH = "memory", "dequantize", "launch"
_HALVES = ("bf16", "fp16")
KINDS = (GEMM, SKINNY_GEMM, ATTENTION, BANDWIDTH, DEQUANTIZE, LAUNCH)


@dataclass(frozen=True)
class Op:
    """`count` equal operations: FLOPs and bytes (read and written) of one. `kind` is one of KINDS but LAUNCH."""

    kind: Annotated[str, Meta(pattern=f"^({'|'.join(KINDS[:-1])})$")]
    backward: bool
    dtype: str
    flops: Annotated[float, Meta(ge=0, le=1e20)]
    bytes: Annotated[float, Meta(ge=0, le=1e18)]
    count: Annotated[int, Meta(ge=0, le=10**8)]


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

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

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
    work: FlopCount | None = None  # of one sequence, attention in full; None in traces of an older version

    @staticmethod
    def from_older(raw: dict[str, Any]) -> dict[str, Any]:
        """Traces that earlier versions kept have each operation as the list of its values."""
        names = [f.name for f in fields(Op)]
        if not isinstance(raw.get("ops"), list):
            return raw
        ops = [dict(zip(names, op, strict=True)) if isinstance(op, list) else op for op in raw["ops"]]
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


def nominal_seconds(trace: Trace, accelerator: Accelerator) -> dict[str, float]:
    """Seconds by kind at the accelerator's nominal figures, forward and backward of one micro-step.

    What is bound by its bytes counts as BANDWIDTH, except dequantising. On a CPU launches add up; on a card they
    overlap with computing, and only what a launch takes longer than its operation counts. Raises UserError for a dtype
    that the accelerator lacks.
    """
    nominal = dict.fromkeys(KINDS, 0.0)
    for op in trace.ops:
        # The roofline: an operation takes what its FLOPs or its bytes take, whichever is more.
        by_bytes = op.bytes / accelerator.bandwidth
        by_flops = op.flops / accelerator.rate(op.dtype)[op.backward] if op.flops else 0.0
        kind = op.kind if op.kind == DEQUANTIZE or by_flops >= by_bytes else BANDWIDTH
        seconds = max(by_flops, by_bytes)
        nominal[kind] += seconds * op.count
        nominal[LAUNCH] += (
            accelerator.launch_s if accelerator.kind == CPU else max(0.0, accelerator.launch_s - seconds)
        ) * op.count
    return nominal


def seconds(nominal: Mapping[str, float], slowdown: Mapping[str, float]) -> float:
    """`nominal` seconds by kind, each times how much slower than that the device is."""
    return sum(nominal[kind] * slowdown[kind] for kind in KINDS)
