"""A lock that one process holds. The system lets go of it when that process ends, however it does."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock `path`, a file that is made where there is none and stays afterwards.

    Raises Held, and OSError where `path` cannot be a lock: a link, a folder, another user's file, or a file system
    without locks. What is there is never changed.
    """
    # Without O_NONBLOCK a pipe of that name would be waited for.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "another user's file")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held from None
        yield
    finally:
        os.close(handle)


def reason(problem: OSError) -> str:
    """Why `exclusive` raised `problem`, in words."""
    return "a link" if problem.errno == errno.ELOOP else problem.strerror or type(problem).__name__
