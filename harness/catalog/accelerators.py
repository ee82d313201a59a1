"""Accelerators that a prediction can be made for: the vendors' figures as plain data, and a user's own from YAML.

The rates are those of the datasheets, dense, without sparsity. A dtype whose rate is EMULATED is computed by the fp32
units after widening. A dtype that is not named is not computed at all.
"""

import re
from dataclasses import replace
from pathlib import Path

from harness import limits
from harness.catalog.accelerator import CPU, CUDA, EMULATED, Accelerator, from_figures, from_probe
from harness.catalog.accelerator_file import read_accelerator
from harness.errors import UserError, unknown
from harness.records.measurement import MatmulSpeed
from harness.text import quoted

__all__ = [
    "ACCELERATORS",
    "CPU",
    "CUDA",
    "Accelerator",
    "counted",
    "cpu",
    "find",
    "is_slice",
    "listed",
    "of_probe",
    "same",
]


def _card(
    name: str, capability: str, gib: float, tflops: tuple[float, float | str, float], gb_s: float, watts: float
) -> Accelerator:
    """A row of the table; `tflops` are fp16's, bf16's and fp32's."""
    rates = dict(zip(("fp16", "bf16", "fp32"), tflops, strict=True))
    by_dtype = {dtype: rate if rate == EMULATED else float(rate) * 1e12 for dtype, rate in rates.items()}
    return from_figures(name, gib * 2**30, gb_s * 1e9, by_dtype, capability, watts)


# name: compute capability, usable GiB, TFLOP/s of fp16 (tensor cores where there are), bf16 and fp32, GB/s, watts, and
# patterns of its other names, above all the driver's (see `find`). A new card is one row. The 16-bit rates of the
# RTX PRO 6000 are its makers' approximate ones, and its fp32 rates have not been checked against their sheet.
# The P100's sheet has 18.7 in fp16, but PyTorch's products accumulate in fp32 there, at fp32's rate. 16-bit rates of
# GeForce cards are those of products that accumulate in fp32, as PyTorch's do.
_ROWS: dict[str, tuple[str, float, tuple[float, float | str, float], float, float, tuple[str, ...]]] = {
    "t4": ("7.5", 14.7, (65, EMULATED, 8.1), 320, 70, ()),
    "p100": ("6.0", 15.9, (9.3, EMULATED, 9.3), 732, 250, ("p100 16gb", "p100 pcie 16gb", "p100 sxm2 16gb")),
    "v100": ("7.0", 15.8, (112, EMULATED, 14), 900, 300, ("v100 16gb", "v100 pcie 16gb", "v100 sxm2 16gb")),
    "rtx-3090": ("8.6", 23.7, (71, 71, 35.6), 936, 350, ()),
    "a10g": ("8.6", 22.1, (70, 70, 35), 600, 300, ()),
    "rtx-a6000": ("8.6", 47.5, (155, 155, 38.7), 768, 300, ()),
    "rtx-4090": ("8.9", 23.6, (165, 165, 82.6), 1008, 450, ()),
    "rtx-5090": ("12.0", 31.3, (209, 209, 104.8), 1792, 575, ()),
    "l4": ("8.9", 22.2, (121, 121, 30.3), 300, 72, ()),
    "l40s": ("8.9", 44.4, (362, 362, 91.6), 864, 350, ()),
    "a100-40gb": ("8.0", 39.4, (312, 312, 19.5), 1555, 400, ("a100 sxm4 40gb", "a100 pcie 40gb")),
    "a100-80gb": ("8.0", 79.2, (312, 312, 19.5), 2039, 400, ("a100", "a100 sxm4 80gb", "a100 80gb pcie")),
    "h100": ("9.0", 79.1, (989, 989, 67), 3350, 700, ("h100 sxm", "h100 80gb hbm3")),
    "h100-pcie": ("9.0", 79.1, (756, 756, 51), 2039, 350, ()),
    "h100-nvl": ("9.0", 93.1, (835, 835, 60), 3938, 400, ()),
    "h200": ("9.0", 139.8, (989, 989, 67), 4800, 700, ("h200 sxm",)),
    "b200": ("10.0", 178, (2250, 2250, 75), 7700, 1000, ("b200 sxm",)),
    "rtx-pro-6000": ("12.0", 95, (500, 500, 125), 1792, 600, ("pro 6000 blackwell workstation edition",)),
    "rtx-pro-6000-server": ("12.0", 95, (500, 500, 120), 1597, 600, ("pro 6000 blackwell server edition",)),
}
ACCELERATORS: dict[str, Accelerator] = {name: _card(name, *row[:5]) for name, row in _ROWS.items()}


_MAKERS = {"nvidia", "tesla", "geforce", "rtx"}
_FURTHER = re.compile(r"x[0-9]+|[0-9]+gb|sxm[0-9]|hbm[0-9]e?|[0-9]+g\.[0-9]+gb")  # words with digits behind a card's


def _words(name: str) -> frozenset[str]:
    """The words of a card's name that tell it from others: "NVIDIA A100-SXM4-80GB" has a100, sxm4 and 80gb."""
    return frozenset(re.findall(r"[a-z0-9]+", name.lower())) - _MAKERS


_BY_WORDS = {_words(pattern): name for name, (*_, patterns) in _ROWS.items() for pattern in (name, *patterns)}
# Of a CPU only the matrix rates are probed; its calibration corrects what these two are off by.
_CPU_BANDWIDTH, _CPU_LAUNCH_S = 20e9, 5e-6


def cpu(name: str, memory_bytes: int, rates: dict[str, MatmulSpeed]) -> Accelerator:
    """This CPU, from its probe (harness.hardware.probe)."""
    like = from_probe(name, memory_bytes, _CPU_BANDWIDTH, rates)
    return replace(like, kind=CPU, launch_s=_CPU_LAUNCH_S, context_bytes=0)


# Bytes per second per FLOP/s of 16-bit products: of the cards in the table half lie between 1/100 and 1/300.
_BYTES_PER_FLOP = 1 / 200
_WHOLE = 0.9  # of a card's memory: with less it is a part of one


def of_probe(
    name: str,
    kind: str,
    memory_bytes: int,
    rates: dict[str, MatmulSpeed],
    bandwidth: float | None = None,
    capability: str | None = None,
) -> Accelerator:
    """The accelerator of a device that was probed, called as its driver calls it: the table's card where it is one.

    Any other card is made of its probe, a MIG slice too: its memory is less than the card's, whatever its name says.
    Without a measured `bandwidth` (bytes/s) one is assumed from its rates. `memory_bytes` is 0 where it is not known.
    Raises UserError for a card that is in no table and has no rates.
    """
    if kind == CPU:
        return cpu(name, memory_bytes, rates)
    count, bare = counted(name)
    try:
        card = find(name)
    except UserError:
        if not rates:
            raise
    else:
        if not rates or not memory_bytes or memory_bytes >= _WHOLE * card.memory_bytes:
            return card
    fastest = max(rate.combined for rate in rates.values())
    measured = from_probe(bare, memory_bytes, bandwidth or fastest * _BYTES_PER_FLOP, rates)
    by = "by a copy" if bandwidth else "assumed from them"
    origin = f"by the probe, for the table has no {bare}: its rates and memory, its bandwidth {by}"
    return replace(measured, origin=origin, capability=capability, count=count)


def is_slice(name: str) -> bool:
    """Whether a driver's name is that of a MIG slice: "NVIDIA A100-SXM4-80GB MIG 1g.10gb"."""
    return "mig" in _words(name)


def same(name: str, other: str) -> bool:
    """Whether two names, as drivers or users write them, are of one card: "rtx-3080" and "NVIDIA GeForce RTX 3080"."""
    return _words(name) == _words(other) != frozenset()


def counted(name: str) -> tuple[int, str]:
    """Number and name of cards: (2, "Tesla T4") for "2 x Tesla T4" and, as Kaggle writes it, "Tesla T4 x2".

    Raises UserError for a number out of bounds.
    """
    # Behind a name the number follows a digit or a space: "GTX 1080" is one card.
    before = re.fullmatch(r"([0-9]+)\s*[xX]\s*(.+)", name.strip())
    behind = re.fullmatch(r"(.*[0-9]|.+\s)[xX]\s*([0-9]+)", name.strip())
    if not (several := before or behind):
        return 1, name.strip()
    digits, bare = several.groups() if before else several.groups()[::-1]
    count = int(digits[:9])
    limits.within(f"--gpu {quoted(name)}: the number of cards", count, limits.Cards)
    return count, bare.strip()


def listed(text: str) -> list[str]:
    """The names in a list of cards, as people and drivers write them: "T4 x2, NVIDIA L4" and "rtx 3090 l4" are two.

    After a comma a name begins; after a space where the one before has its number and the word is a number or a maker.
    """
    # A number of cards belongs to its name: "2 x T4" and "T4 x 2".
    text = re.sub(r"(?<!\S)([0-9]+)\s*[xX]\s+", r"\1x", text)
    text = re.sub(r"\s[xX]\s*([0-9]+)(?!\S)", r" x\1", text)
    names: list[str] = []
    for part in text.split(","):
        begins, numbered = True, False
        for word in part.split():
            own = word in (CPU, CUDA) or word.endswith((".yaml", ".yml"))
            bare = re.sub("^[0-9]+x", "", word.lower())
            number = own or (bool(re.search("[0-9]", bare)) and not _FURTHER.fullmatch(bare))
            if begins or own or (numbered and (number or bare in _MAKERS)):
                names.append(word)
                numbered = number
            else:
                names[-1] += f" {word}"
                numbered |= number
            begins = False
    return list(dict.fromkeys(names))


def find(name: str) -> Accelerator:
    """The accelerator called `name`, or the one that a YAML file of that name describes; `2xt4` is two of them.

    Users' and drivers' ways of writing are recognised ("T4", "Tesla T4", "rtx_3090"). Every word but the maker's must
    be in one of the row's patterns, for one more makes another card: an RTX 3090 Ti, an H100 PCIe, a part of an A100.
    Raises UserError for any other name, and for a file that does not describe one.
    """
    # "2xt4" is two cards of that name.
    count, bare = counted(name)
    if bare.endswith((".yaml", ".yml")):
        return replace(read_accelerator(Path(bare)), count=count)
    # All words must match; a name that shares only some is another card, and an error that says so.
    if row := _BY_WORDS.get(_words(bare)):
        return replace(ACCELERATORS[row], count=count)
    if is_slice(bare):
        raise UserError(
            f"unknown accelerator {quoted(name)}: a MIG slice is a part of a card, with rates and memory of its own; "
            "bench measures it where it is, or describe it in a file, --gpu FILE.yaml"
        )
    if related := [row for row in ACCELERATORS if _words(row) & _words(bare)]:
        has = " and ".join(related)
        raise UserError(
            f"unknown accelerator {quoted(name)}: the table has {has}, not this one; "
            "describe it in a file, --gpu FILE.yaml"
        )
    raise unknown("accelerator", name, (*ACCELERATORS, CPU))
