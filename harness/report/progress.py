"""What a sweep shows while it runs: one live line with the time left on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from harness.analysis.projection import project
from harness.records.cell import Cell
from harness.records.measurement import Measurement
from harness.report.format import duration, number

_REFRESH_S = 2.0  # drawing takes milliseconds of a core that is being measured


class Live:
    """A `harness.measure.sweep.SweepObserver` that writes to `console`. In a `with`, so that the line is cleared."""

    def __init__(self, console: Console):
        self.console, self.total, self.number = console, 0, 0
        self.until = self.after = self.drawn = 0.0
        self.doing = self.last = ""
        self.bar = None
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[left]}"),
            )
            self.bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self.task = self.bar.add_task("", left="", total=None)

    def __enter__(self) -> "Live":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def note(self, text: str) -> None:
        self._say(f"{text} ...")

    def begin(self, device_name: str, cells: int) -> None:
        self.total = cells
        self._say(f"{device_name}: {cells} cells")

    def cell(self, number: int, cell: Cell, seconds: float, seconds_after: float) -> None:
        self.number, self.doing = number, f"{cell.model.name} {cell.label} {cell.context}"
        self.until, self.after = time.monotonic() + seconds, seconds_after
        if not self.bar:
            left = duration(seconds + seconds_after)
            self._say(f"{number}/{self.total} {self.doing}: about {duration(seconds)}, {left} to the end")
        self._draw("start", now=True)

    def phase(self, event: dict[str, Any]) -> None:
        each = f" {number(event['micro_step_s'])} s" if "micro_step_s" in event else ""
        if event:
            self.last = f"{event['phase']}{each}"
        self._draw(self.last)

    def row(self, row: Measurement, measured: bool) -> None:
        cell = row.cell
        name = f"{cell.model.name} {cell.label} {cell.context}"
        if row.ok:
            p = project(row)
            said = f"{number(60 / p.step_s)} steps/min, 1000 steps in {number(p.hours_mid)} h"
        else:
            said = f"{row.status.replace('_', ' ')}: {row.reason}"
        self._say(f"{name}: {said}{'' if measured or not row.ok else ' (from the record)'}")

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _draw(self, phase: str, now: bool = False) -> None:
        if not self.bar or (not now and time.monotonic() - self.drawn < _REFRESH_S):
            return
        self.drawn = time.monotonic()
        left = max(0.0, self.until - self.drawn) + self.after
        self.bar.update(
            self.task,
            description=f"{self.number}/{self.total} {self.doing}: {phase}",
            left=f"{duration(left)} left",
            completed=self.number - 1,
            total=self.total,
        )
        self.bar.refresh()


class Counting:
    """How many are done, with the time left: a live line on a terminal, else one line at first. Use in a `with`."""

    def __init__(self, console: Console, what: str):
        self.console, self.what, self.begun = console, what, 0.0
        self.status = console.status("") if console.is_terminal and not console.is_dumb_terminal else None

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_) -> None:
        if self.status:
            self.status.stop()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not done:
            if not self.status and not self.begun:
                self.console.print(f"{self.what} {total} ...")
            self.begun = now
        if self.status:
            left = f", {duration((now - self.begun) / done * (total - done))} left" if done else ""
            self.status.update(f"{self.what} {done} of {total}{left}")
            self.status.start()
