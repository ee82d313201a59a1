"""Which kernels a device runs a step's parts with: tried once for each device, dtype and width, and kept.

Attention and the pointwise operations (RMSNorm, the gated activation) are what several libraries have kernels for. Each
is run forward and backward in turns with the others, in the model's own shapes; what does not run here, for want of
a compiler or of a library, is left out with the reason. No kernel of bitsandbytes' for 4-bit products has a backward,
so of those there is nothing to choose.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from importlib import metadata
from importlib.util import find_spec
from shutil import which
from statistics import median
from typing import Any

import torch

from harness import files
from harness.catalog.kernels import ATTENTION, KERNELS, PLAIN, parse
from harness.errors import Unsupported, first_line
from harness.hardware.device import cpu_name, synchronizer
from harness.train.compat import quiet
from harness.train.ops import attention, pointwise

TOKENS = {"cpu": 256, "cuda": 2048}
_ROUNDS = 5
_LONGEST_S = 0.5  # a part that takes longer is emulated: no kernel makes that worth while
_WINS_BELOW = 0.95  # of the seconds of the one before it in the list: more than noise

Timings = dict[str, float | str]  # by kernel: its median seconds forward and backward, or why it does not run


@dataclass(frozen=True)
class Shapes:
    """What of a model its kernels' speed depends on."""

    heads: int
    kv_heads: int
    dim: int
    width: int
    inner: int

    @classmethod
    def of(cls, config: Any) -> "Shapes | None":
        """From a text model's config, of its first layer; None for one without attention heads.

        What a family leaves out is as transformers fills it in.
        """

        def said(name: str, otherwise: int) -> int:
            value = getattr(config, name, None)
            return (value[0] if isinstance(value, list | tuple) else value) or otherwise

        heads, width = said("num_attention_heads", 0), said("hidden_size", 0)
        if not heads or not width:
            return None
        inner = said("intermediate_size", 4 * width)
        return cls(heads, said("num_key_value_heads", heads), said("head_dim", width // heads), width, inner)


@dataclass(frozen=True)
class KernelChoice:
    """The kernel of each part, and what is to be said of how it was chosen."""

    of: dict[str, str]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(f"{part}={name}" for part, name in self.of.items())


def choose(asked: str, shapes: Shapes | None, device: torch.device, dtype: torch.dtype) -> KernelChoice:
    """What `asked` (a Recipe's `kernels`) names, and for each part that it leaves open what is fastest on `device`.

    Without `shapes` nothing is tried: the first of each part. Raises Unsupported for a kernel that is asked for and
    does not run here.
    """
    known, named = KERNELS[device.type], parse(asked) if shapes else {}
    chosen, notes = {part: names[0] for part, names in known.items()}, []
    for part, name in named.items():
        if name not in known[part]:
            raise Unsupported(f"--kernels {part}={name} is not for {device.type}, which has {', '.join(known[part])}")
        if name != chosen[part]:
            said = _tried(_run_of(part, name, shapes, device, dtype), device)
            if isinstance(said, str):
                raise Unsupported(f"--kernels {part}={name} does not run here: {said}")
        chosen[part] = name
    if shapes and asked != PLAIN and (left := [part for part in known if part not in named]):
        found = _known(shapes, device, dtype)
        for part in left:
            chosen[part], said = fastest(part, found[part])
            notes += said
    return KernelChoice(chosen, tuple(notes))


def fastest(part: str, found: Timings) -> tuple[str, list[str]]:
    """The kernel to take, and sentences about it: later ones replace an earlier one where they are clearly faster."""
    best = next(iter(found))
    for name, seconds in found.items():
        if isinstance(seconds, float) and seconds < _WINS_BELOW * found[best]:
            best = name
    times = [f"{name} {1000 * each:.2f} ms" for name, each in found.items() if isinstance(each, float)]
    notes = [f"{part}: {best} is used ({', '.join(times)})"] if len(times) > 1 else []
    missing = [(name, why) for name, why in found.items() if isinstance(why, str)]
    return best, notes + [f"{part}: {best} is used, for {name} does not run here: {why}" for name, why in missing]


def measure(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, Timings]:
    """Every part's kernels tried on `device`, in turns."""
    found: dict[str, Timings] = {}
    for part, names in KERNELS[device.type].items():
        runs = {name: _run_of(part, name, shapes, device, dtype) for name in names}
        first = _tried(runs[names[0]], device)
        if isinstance(first, str) or first > _LONGEST_S:
            found[part] = {names[0]: 0.0}  # there is nothing to choose
            continue
        found[part] = {name: _tried(run, device) for name, run in runs.items()}
        taking_turns = [name for name in names if isinstance(found[part][name], float)]
        seconds = {name: [] for name in taking_turns}
        for _ in range(_ROUNDS):
            for name in taking_turns:
                seconds[name].append(_timed(runs[name], device))
        found[part] |= {name: median(each) for name, each in seconds.items()}
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the allocator kept would count as the model's
    return found


def save(shapes: Shapes, device: torch.device, dtype: torch.dtype, found: dict[str, Timings]) -> None:
    """Keeps what was measured for the next processes on this device, with these versions."""
    files.write_cache(_name(shapes, device, dtype), found)


def _known(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, Timings]:
    """What was kept, or is measured now."""
    found = files.read_cache(_name(shapes, device, dtype))
    if not isinstance(found, dict) or set(found) != set(KERNELS[device.type]):
        found = measure(shapes, device, dtype)
        save(shapes, device, dtype, found)
    return found


def _name(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> str:
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    # What is installed later is tried then.
    liger = find_spec("liger_kernel") and metadata.version("liger-kernel")
    compilers = [name for name in ("c++", "g++", "cc", "gcc", "clang") if which(name)]
    here = [what, str(dtype), torch.__version__, liger, compilers]
    said = json.dumps([here, astuple(shapes), KERNELS[device.type]])
    return f"kernels/{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"


def _tried(run: Callable[[], None], device: torch.device) -> float | str:
    """Seconds of a second run, the first compiling or loading what it needs; or why it does not run."""
    try:
        with quiet():
            run()
            return _timed(run, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # a compiler, an import, a kernel that refuses: each has errors of its own
        return first_line(problem)


def _timed(run: Callable[[], None], device: torch.device) -> float:
    wait = synchronizer(device)
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def _run_of(part: str, name: str, shapes: Shapes, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward of `part` by the kernel `name`."""
    tokens = TOKENS[device.type]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_()

    if part == ATTENTION:
        given = [random(1, heads, tokens, shapes.dim) for heads in (shapes.heads, shapes.kv_heads, shapes.kv_heads)]

        def attend() -> None:
            out = attention.with_kernel(name, *given, alone=True)
            torch.autograd.grad(out, given, torch.ones_like(out))

        return attend
    x, weight = random(1, tokens, shapes.width), random(shapes.width)
    gate, up = random(1, tokens, shapes.inner), random(1, tokens, shapes.inner)

    def both() -> None:
        kernels = pointwise.of(name)
        for out, of in ((kernels.norm(x, weight.detach(), 1e-6, True), [x]), (kernels.silu(gate, up), [gate, up])):
            torch.autograd.grad(out, of, torch.ones_like(out))

    return both
