"""What every use of transformers and bitsandbytes here needs: silence, and one kind of failure."""

import ctypes
import warnings
from contextlib import suppress
from functools import lru_cache

import torch
import transformers

from harness.errors import Unsupported, first_line


def bitsandbytes_for(device: torch.device):
    """The module, ready for `device`. Raises Unsupported where it is missing or cannot use the card."""
    try:
        with quiet():
            import bitsandbytes
    except ImportError as problem:
        raise Unsupported(f"bitsandbytes does not start: {first_line(problem)}; pip install bitsandbytes") from None
    # Where its CUDA library does not load it says so on stderr, and fails at the first call only.
    if device.type == "cuda" and getattr(bitsandbytes.cextension.lib, "compiled_with_cuda", False) is not True:
        raise Unsupported("bitsandbytes has no library for this CUDA; try `python -m bitsandbytes`")
    return bitsandbytes


class quiet(warnings.catch_warnings):
    """Libraries' notices on how they are used, which say nothing to the user of this program."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3), glibc


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Lets glibc keep freed memory for the next tensor of this process; other libraries are left alone.

    By default it gives back what is larger than a few MiB, and every operation's result is faulted in anew, page by
    page: a twentieth of a step.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
