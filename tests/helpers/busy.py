"""A machine whose load by others is given second by second; it sleeps in no time."""

from harness.hardware.cpu_load import CpuMeter


class Machine:
    """`others` are the cores that others use in each second, the last one for ever; `slept` seconds were waited."""

    def __init__(self, *others, stolen=0.0):
        self.others, self.stolen, self.slept, self.time = others, stolen, 0.0, 0.0

    def meter(self, **_):
        """A meter that was just started."""
        return CpuMeter(self.busy, self.own, lambda: self.time, self.sleep)

    def sleep(self, seconds):
        self.time += seconds
        self.slept += seconds

    def busy(self):
        """This program itself uses half a core all the time."""
        whole = int(self.time)
        used = sum(self._in(second) for second in range(whole)) + (self.time - whole) * self._in(whole)
        return used + self.own(), self.stolen * self.time

    def own(self):
        return 0.5 * self.time

    def _in(self, second):
        return self.others[min(second, len(self.others) - 1)]
