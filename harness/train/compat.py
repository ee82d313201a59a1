"""Set-up of transformers, peft, bitsandbytes and the allocator: no notices, clear errors, freed memory kept."""

import ctypes
import logging
import warnings
from contextlib import suppress
from functools import lru_cache
from types import ModuleType

import torch
import transformers

from harness.errors import Unsupported, first_line


class quiet(warnings.catch_warnings):
    """Context without the libraries' notices, which are of no use to the user of this program."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        # When imported, bitsandbytes warns on stderr that it lacks the hub's kernels (backends/cpu/ops.py in 0.50).
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def import_peft() -> ModuleType:
    """The module peft. Its import imports bitsandbytes, so that it has to be quiet."""
    with quiet():
        import peft
    return peft


def bitsandbytes_for(device: torch.device) -> ModuleType:
    """The module bitsandbytes, ready for `device`. Raises Unsupported where it is missing or cannot use the card."""
    try:
        with quiet():
            import bitsandbytes
    except ImportError as problem:
        raise Unsupported(f"bitsandbytes does not start: {first_line(problem)}; pip install bitsandbytes") from None
    # Where its CUDA library does not load, it says so on stderr alone and fails at the first call.
    if device.type == "cuda" and getattr(bitsandbytes.cextension.lib, "compiled_with_cuda", False) is not True:
        raise Unsupported("bitsandbytes has no library for this CUDA; try `python -m bitsandbytes`")
    return bitsandbytes


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3), glibc


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Lets glibc keep freed memory for this process's next tensors; does nothing with another C library.

    By default glibc returns blocks above a few MiB to the system, so that the result of every operation is faulted in
    anew, page by page: a twentieth of a step.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
