"""Accelerators that a prediction can be made for: the vendors' figures as plain data, and a user's own from YAML.

The rates are those of the datasheets, dense, without sparsity. A dtype whose rate is EMULATED is computed by the fp32
units after widening. A dtype that is not named is not computed at all.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness import limits
from harness.catalog import strict_yaml
from harness.catalog.precisions import DTYPES, native_dtype
from harness.errors import UserError, unknown
from harness.records.measurement import Duration, MatmulSpeed, Rate, Size
from harness.text import quoted

EMULATED = "emulated"
CUDA, CPU = "cuda", "cpu"
_GIB = 2**30
# Of fp32's rate, for what is computed after widening. Chosen with the one published figure in view that there is, Phi-3
# in bf16 on a T4 (5.3 times as long as in fp16); not measured by this project.
_EMULATED_SHARE = 0.5
# The driver's context with the libraries' kernels and cuBLAS's workspaces: an H100 shows 0.5 GiB, older cards less.
_CONTEXT_BYTES = int(0.45 * _GIB)
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
    context_bytes: Size = _CONTEXT_BYTES
    capability: limits.Capability | None = None
    count: limits.Cards = 1

    def rate(self, dtype: str) -> tuple[float, float]:
        """FLOP/s (forward, backward) of `dtype`. Raises UserError where the card does not compute it."""
        if dtype not in self.rates:
            dtypes = ", ".join(sorted(self.rates))
            raise UserError(f"{self.name} does not compute {dtype}; it has {dtypes}: choose another --precision")
        return self.rates[dtype]

    @property
    def native_half(self) -> str:
        """The dtype that one would train in: as harness.catalog.precisions.native_dtype says of a probed device."""
        return native_dtype({name: MatmulSpeed(*both, name in self.native) for name, both in self.rates.items()})


def _card(name: str, capability: str, gib: float, tflops: tuple[float, float | str, float], gb_s: float) -> Accelerator:
    """A row of the table; `tflops` are fp16's, bf16's and fp32's."""
    rates = dict(zip(("fp16", "bf16", "fp32"), tflops, strict=True))
    by_dtype = {dtype: rate if rate == EMULATED else float(rate) * 1e12 for dtype, rate in rates.items()}
    return _from_figures(name, gib * _GIB, gb_s * 1e9, by_dtype, capability)


def _from_figures(
    name: str, memory_bytes: float, bandwidth: float, rates: dict[str, float | str], capability: str | None = None
) -> Accelerator:
    """An accelerator whose backward products are as fast as the forward ones; `rates` are FLOP/s, or EMULATED."""
    widened = float(rates["fp32"]) * _EMULATED_SHARE
    flops = {dtype: widened if rate == EMULATED else float(rate) for dtype, rate in rates.items()}
    native = tuple(dtype for dtype in DTYPES if rates.get(dtype, EMULATED) != EMULATED)
    both_ways = {dtype: (rate, rate) for dtype, rate in flops.items()}
    return Accelerator(name, int(memory_bytes), bandwidth, both_ways, native, capability=capability)


# name: compute capability, usable GiB, TFLOP/s of fp16 (tensor cores where there are), bf16 and fp32, GB/s, and
# patterns of its other names, above all the driver's (see `find`). A new card is one row. The 16-bit rates of
# the RTX PRO 6000 are its makers' approximate ones, and its fp32 rates have not been checked against their sheet.
_ROWS: dict[str, tuple[str, float, tuple[float, float | str, float], float, tuple[str, ...]]] = {
    "t4": ("7.5", 14.7, (65, EMULATED, 8.1), 320, ()),
    "p100": ("6.0", 15.9, (18.7, EMULATED, 9.3), 732, ("p100 16gb", "p100 pcie 16gb", "p100 sxm2 16gb")),
    "v100": ("7.0", 15.8, (112, EMULATED, 14), 900, ("v100 16gb", "v100 pcie 16gb", "v100 sxm2 16gb")),
    "rtx-3090": ("8.6", 23.7, (71, 71, 35.6), 936, ()),
    "rtx-a6000": ("8.6", 47.5, (155, 155, 38.7), 768, ()),
    "rtx-4090": ("8.9", 23.6, (165, 165, 82.6), 1008, ()),
    "l4": ("8.9", 22.2, (121, 121, 30.3), 300, ()),
    "l40s": ("8.9", 44.4, (362, 362, 91.6), 864, ()),
    "a100-40gb": ("8.0", 39.4, (312, 312, 19.5), 1555, ("a100 sxm4 40gb", "a100 pcie 40gb")),
    "a100-80gb": ("8.0", 79.2, (312, 312, 19.5), 2039, ("a100", "a100 sxm4 80gb", "a100 80gb pcie")),
    "h100": ("9.0", 79.1, (989, 989, 67), 3350, ("h100 sxm", "h100 80gb hbm3")),
    "h200": ("9.0", 139.8, (989, 989, 67), 4800, ("h200 sxm",)),
    "rtx-pro-6000": ("12.0", 95, (500, 500, 125), 1792, ("pro 6000 blackwell workstation edition",)),
    "rtx-pro-6000-server": ("12.0", 95, (500, 500, 120), 1597, ("pro 6000 blackwell server edition",)),
}
ACCELERATORS: dict[str, Accelerator] = {name: _card(name, *row[:4]) for name, row in _ROWS.items()}


def _words(name: str) -> frozenset[str]:
    """The words of a card's name that tell it from others: "NVIDIA A100-SXM4-80GB" has a100, sxm4 and 80gb."""
    return frozenset(re.findall(r"[a-z0-9]+", name.lower())) - {"nvidia", "tesla", "geforce", "rtx"}


_BY_WORDS = {_words(pattern): name for name, (*_, patterns) in _ROWS.items() for pattern in (name, *patterns)}
# Of a CPU only the matrix rates are probed; its calibration corrects what these two are off by.
_CPU_BANDWIDTH, _CPU_LAUNCH_S = 20e9, 5e-6


def cpu(name: str, memory_bytes: int, rates: dict[str, MatmulSpeed]) -> Accelerator:
    """This CPU, from its probe (harness.hardware.probe)."""
    like = _from_probe(name, memory_bytes, _CPU_BANDWIDTH, rates)
    return replace(like, kind=CPU, launch_s=_CPU_LAUNCH_S, context_bytes=0)


# Bytes per second per FLOP/s of 16-bit products: of the cards in the table half lie between 1/100 and 1/300.
_BYTES_PER_FLOP = 1 / 200


def probed(name: str, memory_bytes: int, rates: dict[str, MatmulSpeed]) -> Accelerator:
    """A card outside the table, from its probe; its bandwidth is assumed from its rates."""
    fastest = max(rate.combined for rate in rates.values())
    return _from_probe(name, memory_bytes, fastest * _BYTES_PER_FLOP, rates)


def _from_probe(name: str, memory_bytes: int, bandwidth: float, rates: dict[str, MatmulSpeed]) -> Accelerator:
    native = tuple(dtype for dtype, rate in rates.items() if rate.native)
    by_dtype = {dtype: (rate.forward, rate.backward) for dtype, rate in rates.items()}
    return Accelerator(name, memory_bytes, bandwidth, by_dtype, native)


def find(name: str) -> Accelerator:
    """The accelerator called `name`, or the one that a YAML file of that name describes; `2xt4` is two of them.

    Users' and drivers' ways of writing are recognised ("T4", "Tesla T4", "rtx_3090"). Every word but the maker's must
    be in one of the row's patterns, for one more makes another card: an RTX 3090 Ti, an H100 PCIe, a part of an A100.
    Raises UserError for any other name, and for a file that does not describe one.
    """
    # "2xt4" is two cards of that name.
    count, bare = 1, name.strip()
    if several := re.fullmatch(r"([0-9]+)\s*x\s*(.+)", bare):
        count, bare = int(several[1][:9]), several[2]
        limits.within(f"--gpu {quoted(name)}: the number of cards", count, limits.Cards)
    if bare.endswith((".yaml", ".yml")):
        return replace(_from_file(Path(bare)), count=count)
    # All words must match; a name that shares only some is another card, and an error that says so.
    if row := _BY_WORDS.get(_words(bare)):
        return replace(ACCELERATORS[row], count=count)
    if related := [row for row in ACCELERATORS if _words(row) & _words(bare)]:
        has = " and ".join(related)
        raise UserError(
            f"unknown accelerator {quoted(name)}: the table has {has}, not this one; "
            "describe it in a file, --gpu FILE.yaml"
        )
    raise unknown("accelerator", name, (*ACCELERATORS, CPU))


class _CardFile(strict_yaml.Strict, frozen=True):
    """An accelerator of the user's own. The amounts are texts with a unit, checked one by one."""

    name: limits.CardName
    memory: Any = None
    bandwidth: Any = None
    fp32: Any = None
    fp16: Any = None
    bf16: Any = None
    capability: limits.Capability | None = None


_MOST = 1e18  # bytes, bytes/s or FLOP/s: a thousand times the largest card of today
_RATE_UNITS = {"TFLOP/s": 1e12, "GFLOP/s": 1e9, "TFLOPS": 1e12, "GFLOPS": 1e9}
_UNITS = {
    "memory": {"GiB": 2**30, "GB": 1e9, "MiB": 2**20},
    "bandwidth": {"GB/s": 1e9, "TB/s": 1e12},
    **dict.fromkeys(DTYPES, _RATE_UNITS),
}


def _from_file(path: Path) -> Accelerator:
    """The card that a YAML file describes. Raises UserError with line and key for any fault in it."""
    document = strict_yaml.parse_file(path, "--gpu")
    card = document.convert(_CardFile)
    # fp32 is required: emulated dtypes are computed by its units.
    rates: dict[str, float | str] = {}
    for dtype in DTYPES:
        if dtype != "fp32" and getattr(card, dtype) == EMULATED:
            rates[dtype] = EMULATED
        elif dtype == "fp32" or getattr(card, dtype) is not None:
            rates[dtype] = _amount(document, card, dtype)
    memory, bandwidth = _amount(document, card, "memory"), _amount(document, card, "bandwidth")
    return _from_figures(card.name, memory, bandwidth, rates, card.capability)


def _amount(document: strict_yaml.Document, card: _CardFile, key: str) -> float:
    """The number at `key` in bytes, bytes/s or FLOP/s. Raises UserError where it has no unit, or is not above 0."""
    value, units = getattr(card, key), _UNITS[key]
    example = f"24 {next(iter(units))}"
    if value is None:
        raise document.error((key,), f"is missing; write it with its unit, as in '{example}'")
    # "24 GiB", "1.5e3 GB/s": a number, then one of the units.
    amount = re.fullmatch(r"([0-9.]{1,40}(?:e[+-]?[0-9]{1,4})?)\s*(\S+)", str(value)[:80])
    if not amount or amount[2] not in units:
        raise document.error((key,), f"needs a number with its unit, as in '{example}'")
    try:
        number = float(amount[1])
    except ValueError:
        number = 0.0
    if not 0 < number * units[amount[2]] < _MOST:
        raise document.error((key,), f"must be above 0 and below {_MOST:g} in bytes or FLOP, not {quoted(amount[0])}")
    return number * units[amount[2]]
