"""One bench or fine-tune at a time on a device: two would time each other."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from harness.errors import UserError
from harness.files import cache_folder
from harness.hardware.info import Device
from harness.records.lock import Held, exclusive, reason
from harness.records.store import slug


class Busy(UserError):
    """Another process holds the device."""


@contextmanager
def hold(device: Device) -> Iterator[None]:
    """Locks the device and its partners.

    Raises Busy where another bench or fine-tune of this user holds one of them, and UserError where no lock can be had.
    """
    folder = lock_folder()
    with ExitStack() as locked:
        # In one order whoever comes first, so that two processes of several cards never wait for each other.
        for uuid in sorted({device.uuid, *device.partners}):
            # A home folder may be shared by machines.
            path = folder / f"{slug(socket.gethostname())}-{slug(uuid)}.lock"
            try:
                locked.enter_context(exclusive(path))
            except Held:
                where = "one of these cards" if device.partners else device.id
                raise Busy(f"another bench or ttft is measuring on {where}; let it end, or stop it first") from None
            except OSError as problem:
                remedy = "remove it, or name another folder with TTFT_BENCH_CACHE"
                raise UserError(f"{path}: cannot be locked ({reason(problem)}); {remedy}") from None
        yield


def lock_folder() -> Path:
    """A folder that this user alone can write: in the cache, in XDG_RUNTIME_DIR, or in the temporary folder.

    Raises UserError where there is none.
    """
    with suppress(OSError):
        folder = cache_folder() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    places = [Path(runtime, "ttft-bench")] if (runtime := os.environ.get("XDG_RUNTIME_DIR")) else []
    with suppress(OSError):
        # By number: a user in a container may have no name.
        places.append(Path(gettempdir(), f"ttft-bench-{os.geteuid()}"))
    for folder in places:
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_own(folder):
                return folder
    raise UserError("no folder of this user's alone can be written for locks; name one with TTFT_BENCH_CACHE")


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, no link to one, that belongs to this user and that nobody else can write.

    Its name can be guessed, so somebody else may have made it.
    """
    status = folder.lstat()
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return mine and os.access(folder, os.W_OK | os.X_OK)
