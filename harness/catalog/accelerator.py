"""One accelerator as predictions see it, made of the figures of a sheet or of a probe."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from harness import limits
from harness.catalog.precisions import DTYPES, native_dtype
from harness.errors import UserError
from harness.records.measurement import CONTEXT_BYTES, NATIVE_FACTOR, Duration, MatmulSpeed, Rate, Size

EMULATED = "emulated"
CUDA, CPU = "cuda", "cpu"
# Of fp32's rate, for what is computed after widening. Chosen with the one published figure in view that there is, Phi-3
# in bf16 on a T4 (5.3 times as long as in fp16); not measured by this project.
_EMULATED_SHARE = 0.5
_LAUNCH_S = 8e-6  # between two operations of eager PyTorch, where the card waits for the interpreter


@dataclass(frozen=True)
class Accelerator:
    """A device as the prediction of a step's time and memory sees it.

    `rates` are FLOP/s of matrix products by dtype, (forward, backward); `bandwidth` is in bytes/s; `launch_s` is the
    least time per operation; `context_bytes` is what the driver and the libraries hold before the first tensor.
    """

    name: str
    memory_bytes: Size
    bandwidth: Rate
    rates: dict[str, tuple[Rate, Rate]]
    native: tuple[str, ...]
    kind: Annotated[str, Meta(pattern=f"^({CUDA}|{CPU})$")] = CUDA
    launch_s: Duration = _LAUNCH_S
    context_bytes: Size = CONTEXT_BYTES
    capability: limits.Capability | None = None
    count: limits.Cards = 1
    power_w: float | None = None  # that the card may take, by its sheet; None where it is not known
    origin: str = ""  # of figures that are no datasheet's: how they were found

    def rate(self, dtype: str) -> tuple[float, float]:
        """FLOP/s (forward, backward) of `dtype`. Raises UserError where the card does not compute it."""
        if not self.rates:
            raise UserError(f"{self.name}: its rates were not probed; bench --fresh measures a cell with them")
        if dtype not in self.rates:
            dtypes = ", ".join(sorted(self.rates))
            raise UserError(f"{self.name} does not compute {dtype}; it has {dtypes}: choose another --precision")
        return self.rates[dtype]

    @property
    def native_half(self) -> str:
        """The dtype that one would train in: as harness.catalog.precisions.native_dtype says of a probed device."""
        return native_dtype({name: MatmulSpeed(*both, name in self.native) for name, both in self.rates.items()})


def from_figures(
    name: str,
    memory_bytes: float,
    bandwidth: float,
    rates: dict[str, float | str],
    capability: str | None = None,
    power_w: float | None = None,
) -> Accelerator:
    """An accelerator whose backward products are as fast as the forward ones; `rates` are FLOP/s, or EMULATED."""
    widened = float(rates["fp32"]) * _EMULATED_SHARE
    flops = {dtype: widened if rate == EMULATED else float(rate) for dtype, rate in rates.items()}
    # As the probe judges: a 16-bit dtype no faster than fp32 is computed by fp32's units, whatever a sheet says.
    least = NATIVE_FACTOR * flops["fp32"]
    native = tuple(dtype for dtype in DTYPES if dtype == "fp32" or flops.get(dtype, 0.0) >= least)
    both_ways = {dtype: (rate, rate) for dtype, rate in flops.items()}
    return Accelerator(name, int(memory_bytes), bandwidth, both_ways, native, capability=capability, power_w=power_w)


def from_probe(name: str, memory_bytes: int, bandwidth: float, rates: dict[str, MatmulSpeed]) -> Accelerator:
    """An accelerator of these measured rates; `bandwidth` is in bytes/s."""
    native = tuple(dtype for dtype, rate in rates.items() if rate.native)
    by_dtype = {dtype: (rate.forward, rate.backward) for dtype, rate in rates.items()}
    return Accelerator(name, memory_bytes, bandwidth, by_dtype, native)
