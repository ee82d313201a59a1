"""The precisions that can be measured, as plain data; harness.train.quantize builds their layers."""

from dataclasses import dataclass, replace

from harness.errors import UserError, unknown
from harness.records.measurement import MatmulSpeed

DTYPES = ("fp32", "fp16", "bf16")  # what matrix products run in


NF4, INT8 = "nf4", "int8"  # kinds of quantisation; harness.train.quantize has a layer for each
# Tokens of a micro-batch up to which bitsandbytes from 0.50 on may have a fused kernel for 4-bit matrices on a card
# (harness.predict.gemm_4bit); beyond, it dequantises them first.
FUSED_4BIT_ROWS = 1536


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How bitsandbytes keeps the matrices of linear layers.

    NF4 (QLoRA, Dettmers et al. 2023, section 3): every `block_size` values share a scale; with `double` the scales are
    quantised in turn. INT8 (LLM.int8(), Dettmers et al. 2022, section 3): every row has a scale; columns of activations
    with a value above `threshold` are multiplied in 16 bits.
    """

    kind: str
    block_size: int | None = None
    double: bool = False
    threshold: float = 0.0


@dataclass(frozen=True)
class Precision:
    """How the frozen base is stored: in `weight_bits` per value, quantised or not.

    `compute` is the dtype of the matrix products, None where it is the device's native 16-bit one (bitsandbytes'
    own default would be fp32, several times slower on a GPU).
    """

    name: str
    weight_bits: float
    quantization: Quantization | None = None
    compute: str | None = None

    @property
    def quantized(self) -> bool:
        return self.quantization is not None


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", 32, compute="fp32"),
        Precision("fp16", 16, compute="fp16"),
        Precision("bf16", 16, compute="bf16"),
        Precision("int8", 8, Quantization(kind=INT8, threshold=6.0)),
        # 4 + 8/64 + 32/(64*256) bits: a byte per block, fp32 per 256 blocks.
        Precision("int4", 4.127, Quantization(kind=NF4, block_size=64, double=True)),
    )
}
# The device's native 16-bit one, fp32 where there is none: a word for requests. Cells and records say which it was.
NATIVE = Precision("native", 16)
REQUESTS = {NATIVE.name: NATIVE, **PRECISIONS}  # by the names that models.yaml and the command line take


def requested(name: str) -> Precision:
    """The precision called `name`, "native" among them (see `resolve`). Raises UserError for any other name."""
    if name not in REQUESTS:
        raise unknown("precision", name, REQUESTS)
    return REQUESTS[name]


def resolve(precision: Precision, native: str) -> Precision:
    """`precision` as a cell has it, on a device whose native dtype is `native`."""
    return PRECISIONS[native] if precision == NATIVE else precision


def computing_in(precision: Precision, dtype: str | None) -> Precision:
    """`precision` with products in `dtype`; None changes nothing.

    Raises UserError for another word, and for weights that are not quantised, which are multiplied as they are stored.
    """
    if dtype is None or dtype == precision.compute:
        return precision
    if dtype not in DTYPES:
        raise unknown("--compute dtype", dtype, DTYPES)
    if not precision.quantized:
        raise UserError(f"--compute {dtype}: {precision.name} is multiplied as it is stored; name --precision {dtype}")
    return replace(precision, compute=dtype)


def find(name: str) -> Precision:
    """The precision called `name`. Raises UserError for any other name."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    return PRECISIONS[name]


def lower_bound(precision: Precision, device_kind: str) -> str:
    """Why seconds without the model's own activations are a lower bound on a device of this kind; "" where not.

    On a card LLM.int8() multiplies the columns of activations that hold a value above its threshold again, in 16 bits
    (bitsandbytes' backends/cuda/ops.py); trained models have such columns in every layer, random ones next to none.
    """
    quantization = precision.quantization
    if device_kind != "cuda" or not quantization or not quantization.threshold:
        return ""
    return (
        f"{precision.name}: seconds are a lower bound, for with real weights outlier columns of activations (above "
        f"{quantization.threshold:g}) are multiplied again in 16 bits"
    )


def native_dtype(rates: dict[str, MatmulSpeed]) -> str:
    """The dtype that a user of this device would train in: its native 16-bit one, else fp32.

    Of two that are about as fast it is bf16, which needs no gradient scaler: always the same one, whatever the probe's
    noise, for it names the cells that a later sweep goes on with.
    """
    halves = {name: rates[name].combined for name in ("bf16", "fp16") if name in rates and rates[name].native}
    if "bf16" in halves and halves["bf16"] >= 0.7 * halves.get("fp16", 0.0):
        return "bf16"
    return "fp16" if "fp16" in halves else "fp32"


def compute_dtype(precision: Precision, rates: dict[str, MatmulSpeed]) -> str:
    return precision.compute or native_dtype(rates)
