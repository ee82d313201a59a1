"""What an exception says of the device: that its memory ran out, or that the card is lost to this process.

Each library has a way of its own to say it, and most have no exception for it: the signs are words of their messages.
"""

from collections.abc import Iterator

import torch

from harness.errors import first_line

# The CPU's and the card's allocators, the driver, cuBLAS, cuDNN, bitsandbytes and Triton.
_RAN_OUT = ("out of memory", "can't allocate memory", "alloc failed", "allocation failed", "memoryallocation")
# After one of these every further call on the card fails in this process.
_LOST = (
    "device-side assert",
    "unspecified launch failure",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "uncorrectable ecc",
    "fallen off the bus",
    "gpu is lost",
    "xid",
)
_TAKEN = ("busy or unavailable", "exclusive process")


def ran_out(problem: BaseException) -> bool:
    """Whether `problem`, or what it was raised from, means that memory of the device or of the machine ran out."""
    return any(
        isinstance(link, torch.OutOfMemoryError | MemoryError) or _has(link, _RAN_OUT) or _while_quantising(link)
        for link in _chain(problem)
    )


def lost(problem: BaseException) -> str | None:
    """A sentence with the remedy where `problem` means that this process can use its card no longer; else None."""
    for link in _chain(problem):
        if _has(link, _TAKEN):
            return f"another process holds this card alone ({first_line(link)}); end it, see nvidia-smi, then --retry"
        if _has(link, _LOST):
            return f"the card was lost ({first_line(link)}); look for Xid in dmesg, reset the card, then --retry"
    return None


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    """`problem`, and the exceptions that it was raised from."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__


def _has(problem: BaseException, signs: tuple[str, ...]) -> bool:
    text = str(problem).lower().replace("_", " ")
    return isinstance(problem, RuntimeError | OSError) and any(sign in text for sign in signs)


def _while_quantising(problem: BaseException) -> bool:
    """transformers replaces what goes wrong while it quantises by a sentence; the caching allocator counts it."""
    if "automatic conversion" not in str(problem).lower() or not torch.cuda.is_available():
        return False
    return torch.cuda.memory_stats().get("num_ooms", 0) > 0
