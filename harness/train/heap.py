"""How the C library's heap behaves under training on a CPU."""

import ctypes
from contextlib import suppress
from functools import lru_cache

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
