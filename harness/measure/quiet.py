"""Waits until others leave the CPU alone: a cell that is timed beside a busy program says nothing of the device."""

from collections.abc import Callable, Sequence
from typing import Any

from harness.hardware.cpu_load import CpuLoad, CpuMeter
from harness.hardware.info import Device
from harness.records.measurement import CROWDED, Measurement

WAIT_S = 60.0  # of a sweep's cells, all together
_LOOK_S = 1.0


class Quiet:
    """Looks at the load before the cells of one sweep. On a card nothing waits; `force` looks at nothing.

    `note` prints a line, `phase` shows what is waited for. Cells that are not `on_this_machine` are not its to judge.
    """

    def __init__(
        self,
        device: Device,
        meter: CpuMeter,
        note: Callable[[str], None],
        phase: Callable[[dict[str, Any]], None],
        force: bool,
        on_this_machine: bool = True,
    ):
        self.on_this_machine = on_this_machine
        self.device, self.meter, self.note, self.phase = device, meter, note, phase
        self.left_s = 0.0 if force or not on_this_machine or device.kind != "cpu" else WAIT_S
        self.was_quiet = False  # while the cell before was sampled

    def wait(self) -> None:
        """Returns when the last second was quiet, or when the sweep has waited for a minute."""
        if self.was_quiet or self.left_s <= 0:
            return
        # What happened since the meter was started, if that says enough.
        load = self.meter.read() if self.meter.seconds >= _LOOK_S else self.meter.over(_LOOK_S)
        if not load.crowds(self.device.threads):
            return
        began, until = self.meter.clock(), self.meter.clock() + self.left_s
        self.note(f"others use {load}: waiting up to {self.left_s:.0f} s for them (--force goes on)")
        while load.crowds(self.device.threads) and self.meter.clock() < until:
            self.phase({"phase": f"waiting, others use {load}"})
            load = self.meter.over(_LOOK_S)
        waited_s = self.meter.clock() - began
        self.left_s -= waited_s
        if load.crowds(self.device.threads):
            self.note(f"others still use {load}: going on, and what is slowed by them is marked")
        else:
            self.note(f"quiet after {waited_s:.0f} s")

    def sampled(self, row: Measurement) -> Sequence[str]:
        """The note on `row` if others slowed it while it was sampled. How many cores another machine has is not
        known here."""
        if not self.on_this_machine:
            return ()
        self.meter.start()
        if row.others_cpu is None:
            self.was_quiet = False
            return ()
        load = CpuLoad(row.others_cpu, row.steal or 0.0)
        self.was_quiet = not load.crowds(self.device.threads)
        return () if self.was_quiet else (CROWDED,)
