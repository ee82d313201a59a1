"""One sweep at a time on a device."""

import getpass
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import UserError
from harness.hardware.info import Device
from harness.records.store import slug


@contextmanager
def hold(locks: Path, device: Device) -> Iterator[None]:
    """Locks the device and its partners. Raises UserError where another sweep holds one of them.

    Two sweeps on one device would disturb each other's timings; on two devices they may share a folder.
    """
    with ExitStack() as locked:
        # In one order whoever comes first, so that two sweeps of several cards never wait for each other.
        for uuid in sorted({device.uuid, *device.partners}):
            lock = FileLock(locks / f"ttft-bench-{getpass.getuser()}-{slug(uuid)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                where = "one of these cards" if device.partners else device.id
                raise UserError(f"another sweep is measuring on {where}; let it end, or stop it first") from None
            locked.callback(lock.release)
        yield
