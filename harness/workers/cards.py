"""All cards of one kind on this machine, each for jobs of its own."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from harness.hardware import device_lock
from harness.hardware.info import Device
from harness.workers.local import LocalExecutor

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def one_each(
    executor: LocalExecutor, device: Device, note: Callable[[str], None], most: int
) -> Iterator[list[LocalExecutor]]:
    """An executor per card of `device`'s name, `most` at most, whose jobs see that card alone, as cuda:0.

    `device` is the caller's.
    The other cards are locked meanwhile; one that another process has is left to it. A machine's only card, or a CPU,
    has the executor that was given.
    """
    # Numbers are those of the cards that this process sees.
    environment = executor.environment or {}
    shown = {**os.environ, **environment}.get(_VISIBLE, "")
    names = [name.strip() for name in shown.split(",") if name.strip()]
    used, not_needed = [int(device.id.partition(":")[2] or 0)], []
    with ExitStack() as held:
        for other, uuid in zip(device.others, device.other_uuids, strict=False):
            number, _, name = other.partition(" ")
            if name != device.name:
                continue
            if len(used) >= most:
                not_needed.append(number)
                continue
            try:
                held.enter_context(device_lock.hold(replace(device, uuid=uuid, partners=())))
            except device_lock.Busy:
                note(f"{other} is left to the bench or ttft that uses it")
                continue
            used.append(int(number.partition(":")[2]))
        if not_needed:
            note(f"{', '.join(not_needed)} not needed: a model in one precision keeps to one card")
        if len(used) == 1:
            yield [executor]
            return
        note(f"{len(used)} cards, a cell on each at a time")
        alone = [{**environment, _VISIBLE: names[number] if names else str(number)} for number in used]
        yield [
            held.enter_context(LocalExecutor(executor.command, variables, executor.free_bytes)) for variables in alone
        ]
