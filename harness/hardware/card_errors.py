"""What a message says of the card: that its memory ran out, or that it is lost to this process. Knows no torch.

Each library has a way of its own to say it, and most have no exception for it: the signs are words of their messages.
"""

import re

# The CPU's and the card's allocators, the driver, cuBLAS (which says the last where its handle finds no room), cuDNN,
# bitsandbytes and Triton.
_RAN_OUT = ("out of memory", "can't allocate memory", "alloc failed", "allocation failed", "memoryallocation",
            "cublas status not initialized")  # fmt: skip
# After one of these every further call on the card fails in this process.
_LOST = (
    "device-side assert",
    "unspecified launch failure",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "launch timed out",
    "uncorrectable ecc",
    "cublas status execution failed",
    "cudnn status execution failed",
    # Away from the bus, or from the driver, which may be under reset or replaced.
    "fallen off the bus",
    "gpu is lost",
    "no cuda gpus are available",
    "no cuda-capable device",
    "invalid device ordinal",
    "cuda unknown error",
    "cuda error: unknown error",
    "driver/library version mismatch",
)
_XID = re.compile(r"\bxid\b")
_TAKEN = ("busy or unavailable", "exclusive process", "exclusive-process")
_NO_KERNELS = "no kernel image is available"


def ran_out(message: str) -> bool:
    """Whether it says that memory of the card or of the machine ran out."""
    return _has(message, _RAN_OUT)


def lost(message: str) -> str | None:
    """What to do about the first line of `message`, where it says that the card can be used no longer; else None."""
    first = message.strip().partition("\n")[0][:200]
    if _has(message, _TAKEN):
        return f"another process holds this card alone ({first}); end it, see nvidia-smi, then --retry"
    if _has(message, _LOST) or _XID.search(message.lower()):
        return f"the card was lost ({first}); look for Xid in dmesg, reset the card, then --retry"
    return None


def without_kernels(message: str) -> bool:
    """Whether it says that a library was built without code for this card."""
    return _NO_KERNELS in message.lower()


def _has(message: str, signs: tuple[str, ...]) -> bool:
    text = message.lower().replace("_", " ")
    return any(sign in text for sign in signs)
