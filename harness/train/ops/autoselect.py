"""Chooses the fastest kernels of a step on this device: measured once per device, dtype and shapes, then cached.

Attention and the pointwise operations (RMSNorm, the gated activation) each have several kernels. All run forward and
backward, in turns, in the model's own shapes; what does not run here, for want of a compiler or of a library, is left
out with the reason. None of bitsandbytes' kernels for 4-bit products has a backward, so there is no choice of those.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from shutil import which
from statistics import median
from typing import Annotated, Any

import msgspec
import torch

from harness import files
from harness.catalog.kernels import ATTENTION, KERNELS, PLAIN, parse
from harness.errors import Unsupported, first_line
from harness.hardware.device import cpu_name, synchronizer
from harness.train.compat import quiet
from harness.train.ops import attention, pointwise

TOKENS = {"cpu": 256, "cuda": 2048}
# Tokens of the sequences that are attended, one run after the other: each length once, as in packs of ARC's, so that
# what a kernel prepares for a new length (cuDNN a plan) is in its time.
LENGTHS = {"cpu": (256,), "cuda": (2048, 1327, 1811, 743, 1539, 1103, 1907)}
_ROUNDS = 5
_LONGEST_S = 0.5  # a part that takes longer is emulated in this dtype: no kernel would help
_WINS_BELOW = 0.95  # share of the best time so far that a later kernel must stay below: more than noise

Timings = dict[str, float | str]  # by kernel: median seconds forward and backward, or why it does not run


@dataclass(frozen=True)
class Shapes:
    """The sizes of a model that its kernels' speed depends on."""

    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int

    @classmethod
    def of(cls, config: Any) -> "Shapes | None":
        """From a text model's config, of its first layer; None for one without attention heads.

        Where a family leaves a size out, it is transformers' default.
        """

        def size(name: str, default: int) -> int:
            try:
                value = getattr(config, name, None)
            except RuntimeError:  # a size that differs between layers: transformers tells it per layer
                value = getattr(config.per_layer_config[0], name, None)
            return (value[0] if isinstance(value, list | tuple) else value) or default

        heads, hidden_size = size("num_attention_heads", 0), size("hidden_size", 0)
        if not heads or not hidden_size:
            return None
        return cls(
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", hidden_size // heads),
            hidden_size=hidden_size,
            intermediate_size=size("intermediate_size", 4 * hidden_size),
        )


@dataclass(frozen=True)
class KernelChoice:
    """The kernel of every part, and sentences on how it was chosen.

    `plain` are the kernels to go back to where those chosen alone are no faster in a step (harness.train.confirm);
    empty where nothing was chosen by time.
    """

    of: dict[str, str]
    notes: tuple[str, ...] = ()
    plain: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(f"{part}={name}" for part, name in self.of.items())


def choose_kernels(requested: str, shapes: Shapes | None, device: torch.device, dtype: torch.dtype) -> KernelChoice:
    """The kernels that `requested` (a Recipe's `kernels`) names, and for the other parts the fastest on `device`.

    Without `shapes` nothing is tried: the first of every part. Raises Unsupported for a requested kernel that does not
    run here.
    """
    available, named = KERNELS[device.type], parse(requested) if shapes else {}
    chosen, notes = {part: names[0] for part, names in available.items()}, []
    # What is requested by name; the first of a part needs no trial.
    for part, name in named.items():
        if name not in available[part]:
            names = ", ".join(available[part])
            raise Unsupported(f"--kernels {part}={name} is not for {device.type}, which has {names}")
        if name != chosen[part]:
            outcome = _try(_runner(part, name, shapes, device, dtype), device)
            if isinstance(outcome, str):
                raise Unsupported(f"--kernels {part}={name} does not run here: {outcome}")
        chosen[part] = name
    # The rest by measured time.
    open_parts = [part for part in available if part not in named]
    plain = dict(chosen)
    if shapes and requested != PLAIN and open_parts:
        timings = _cached(shapes, device, dtype)
        for part in open_parts:
            chosen[part], sentences = fastest_kernel(part, timings[part])
            notes += sentences
    return KernelChoice(chosen, tuple(notes), plain if plain != chosen else {})


def fastest_kernel(part: str, timings: Timings) -> tuple[str, list[str]]:
    """The kernel to take, and sentences about it. A later one replaces an earlier one if it is clearly faster."""
    # In the order of harness.catalog.kernels: an equal time leaves the earlier, simpler kernel.
    best = next(iter(timings))
    for name, seconds in timings.items():
        if isinstance(seconds, float) and seconds < _WINS_BELOW * timings[best]:
            best = name
    times = [f"{name} {1000 * seconds:.2f} ms" for name, seconds in timings.items() if isinstance(seconds, float)]
    notes = [f"{part}: {best} is used ({', '.join(times)})"] if len(times) > 1 else []
    missing = [(name, reason) for name, reason in timings.items() if isinstance(reason, str)]
    return best, notes + [f"{part}: {best} is used, for {name} does not run here: {reason}" for name, reason in missing]


def measure(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, Timings]:
    """Timings of every part's kernels on `device`, by part; the kernels of a part run in turns."""
    timings: dict[str, Timings] = {}
    for part, names in KERNELS[device.type].items():
        runners = {name: _runner(part, name, shapes, device, dtype) for name in names}
        first = _try(runners[names[0]], device)
        if isinstance(first, str) or first > _LONGEST_S:
            timings[part] = {names[0]: 0.0}  # there is nothing to choose
            continue
        timings[part] = {names[0]: first, **{name: _try(runners[name], device) for name in names[1:]}}
        # In turns, so that a slow moment of the machine does not fall on one kernel alone.
        running = [name for name in names if isinstance(timings[part][name], float)]
        samples = {name: [] for name in running}
        for _ in range(_ROUNDS):
            for name in running:
                samples[name].append(_timed(runners[name], device))
        timings[part] |= {name: median(seconds) for name, seconds in samples.items()}
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the allocator kept would count as the model's
    return timings


def _cached(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, Timings]:
    """Timings from the cache folder, or measured now and written there for the next processes."""
    name = cache_name(shapes, device, dtype)
    timings = files.read_cache(name, partial(_timings, kind=device.type))
    if timings is None:
        timings = measure(shapes, device, dtype)
        files.write_cache(name, timings)
    return timings


def _timings(raw: Any, kind: str) -> Timings:
    """Kept timings. Raises ValueError where they are none, or of other parts than this version's."""
    try:
        timings = msgspec.convert(raw, dict[str, dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e9)] | str]])
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None
    if set(timings) != set(KERNELS[kind]):
        raise ValueError("of another version")
    for part, kernels in timings.items():
        # The first one runs everywhere, so it has a time.
        if not set(kernels) <= set(KERNELS[kind][part]) or isinstance(next(iter(kernels.values()), ""), str):
            raise ValueError(f"no timings of {part}")
    return timings


def cache_name(shapes: Shapes, device: torch.device, dtype: torch.dtype, more: str = "") -> str:
    """The file of what is measured for these; `more` tells further files of them apart."""
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    # Kernels are measured again when what they need gets installed.
    liger = find_spec("liger_kernel") and metadata.version("liger-kernel")
    compilers = [name for name in ("c++", "g++", "cc", "gcc", "clang") if which(name)]
    environment = [device_name, str(dtype), torch.__version__, liger, compilers]
    key = json.dumps(
        [environment, astuple(shapes), KERNELS[device.type], LENGTHS[device.type], *([more] if more else [])]
    )
    return f"kernels/{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _try(run: Callable[[], None], device: torch.device) -> float | str:
    """Seconds of a second run, after one that compiles or loads what it needs; or why it does not run."""
    try:
        with quiet():
            run()
            return _timed(run, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # compilers, imports and kernels all have errors of their own
        return first_line(problem)


def _timed(run: Callable[[], None], device: torch.device) -> float:
    wait = synchronizer(device)
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def _runner(part: str, name: str, shapes: Shapes, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward of `part` by the kernel `name`."""
    tokens = TOKENS[device.type]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_()

    if part == ATTENTION:
        # Attention: queries, keys and values of one sequence, of another length in every run.
        heads = (shapes.heads, shapes.kv_heads, shapes.kv_heads)
        query_key_value = [random(1, count, tokens, shapes.head_dim).detach() for count in heads]
        lengths = itertools.cycle(LENGTHS[device.type])

        def attend() -> None:
            length = next(lengths)
            parts = [whole[:, :, :length].requires_grad_() for whole in query_key_value]
            out = attention.with_kernel(name, *parts, alone=True)
            torch.autograd.grad(out, parts, torch.ones_like(out))

        return attend
    # Pointwise: one norm and one gated activation.
    x, weight = random(1, tokens, shapes.hidden_size), random(shapes.hidden_size)
    gate, up = random(1, tokens, shapes.intermediate_size), random(1, tokens, shapes.intermediate_size)

    def norm_and_gate() -> None:
        kernels = pointwise.of(name)
        for out, inputs in ((kernels.norm(x, weight.detach(), 1e-6, True), [x]), (kernels.silu(gate, up), [gate, up])):
            torch.autograd.grad(out, inputs, torch.ones_like(out))

    return norm_and_gate
