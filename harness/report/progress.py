"""Progress of a long job: one live line with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from harness.analysis.projection import project
from harness.digits import number
from harness.records.cell import Cell
from harness.records.measurement import Measurement
from harness.report.format import cell_name, duration

_REFRESH_S = 2.0  # drawing takes milliseconds of a core that is being measured
_PRINT_EVERY_S = 10.0  # between two plain lines of one loop


class ProgressLine:
    """Shows the progress of a sweep, a count or a fine-tuning on `console`. Used in a `with`, which clears the line.

    It is the observer of the sweep (`harness.measure.config.SweepObserver`: note, begin, cell, phase, row) and of
    fine-tuning (note, step, answers), and counts (count). A measured row is shown with its hours for `goal_steps`
    steps; `clock` returns seconds.
    """

    def __init__(self, console: Console, goal_steps: int = 1000, clock: Callable[[], float] = time.monotonic):
        self.console, self.goal_steps, self.clock = console, goal_steps, clock
        self.cells = self.rows = self.number = 0  # cells of all sweeps under way, their rows, and the last cell begun
        self.at_work: dict[tuple[str, str, int, str], _AtWork] = {}
        self.later_cells_s = 0.0
        self.loops: dict[str, _Loop] = {}
        self.announced: set[str] = set()
        self.drawn_s = float("-inf")
        self.bar: Progress | None = None
        # A dumb terminal cannot move its cursor, so it gets plain lines, as a file does.
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[left]}"),
            )
            self.bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self.task = self.bar.add_task("", left="", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def clear(self) -> None:
        """Takes the live line away, for what is printed next; it comes back when something goes on."""
        if self.bar:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Prints `text` as a line of its own, above the live one."""
        self.console.print(Text(text), soft_wrap=True)

    def begin(self, device_name: str, cells: int) -> None:
        """A sweep of `cells` cells starts; one on another kind of device may be under way."""
        if not self.at_work and self.rows >= self.cells:
            self.cells = self.rows = 0
        self.cells += cells
        self.note(f"{device_name}: {cells} cells")

    def cell(self, number: int, cell: Cell, seconds: float, seconds_after: float) -> None:
        """Cell `number` (from 1) starts; it is expected to take `seconds`, and all later ones `seconds_after`."""
        self.number = number
        self.at_work[_key(cell)] = now = _AtWork(number, cell.device_name, cell_name(cell), self.clock() + seconds)
        self.later_cells_s = seconds_after
        if not self.bar:
            left = duration(seconds + seconds_after)
            self.note(f"{number}/{self.cells} {now.name}: about {duration(seconds)}, {left} to the end")
        self._draw_cell(now, now=True)

    def phase(self, event: dict[str, Any]) -> None:
        """An event of the process of cell `event["cell"]` (its number) on `event["device"]`, by default the last one: a
        phase, perhaps with the seconds of a micro-step, or nothing, a sign of life."""
        number_of, device = event.get("cell", self.number), event.get("device")
        of_number = [cell for cell in self.at_work.values() if cell.number == number_of]
        cell = next((cell for cell in of_number if device in (None, cell.device)), None)
        if not cell:
            return
        if "phase" in event:
            micro_step = f" {number(event['micro_step_s'])} s" if "micro_step_s" in event else ""
            cell.phase = f"{event['phase']}{micro_step}"
        self._draw_cell(cell)

    def row(self, row: Measurement, measured: bool) -> None:
        """The result of a cell, measured just now or taken from the record."""
        self.at_work.pop(_key(row.cell), None)
        self.rows += 1
        if row.ok:
            p = project(row, self.goal_steps)
            result = f"{number(60 / p.step_s)} steps/min, {self.goal_steps} steps in {number(p.hours_mid)} h"
        else:
            result = f"{row.status.replace('_', ' ')}: {row.reason}"
        self.note(f"{cell_name(row.cell)}: {result}{'' if measured or not row.ok else ' (from the record)'}")

    def count(self, verb: str, done: int, total: int) -> None:
        """`done` of `total` are done, from 0: "tracing 3 of 8"."""
        if not self.bar and not done and verb not in self.announced:
            self.announced.add(verb)
            self.note(f"{verb} {total} ...")
        self._advance(verb, f"{verb} {done} of {total}", done, total)

    def step(self, arm: str, step: int, total: int, loss: float) -> None:
        """Step `step` of an arm's `total` training steps is done, with this loss."""
        self._advance(f"{arm} training", f"{arm}: step {step} of {total}, loss {loss:.3f}", step, total)

    def answers(self, done: int, total: int) -> None:
        """`done` of `total` test inputs are answered."""
        self._advance("answering", f"{done} of {total} questions answered", done, total)

    def live(self, text: str, done: int, total: int) -> None:
        """Shows `text` on the live line, where there is one."""
        self._draw(text, None, min(done, total - 1), total)

    def _advance(self, loop_name: str, text: str, done: int, total: int) -> None:
        """Shows `text` with the time left; as a plain line only now and then, and not for the end."""
        left_s = self._seconds_left(loop_name, done, total)
        self._draw(text, left_s, done, total, now=not done)
        now = self.clock()
        # A log gets a line every few seconds; a terminal has its live line.
        loop = self.loops[loop_name]
        if not self.bar and left_s and now - loop.printed_s >= _PRINT_EVERY_S:
            loop.printed_s = now
            self.note(f"{text}, about {duration(left_s)} left")

    def _seconds_left(self, loop_name: str, done: int, total: int) -> float | None:
        """Seconds to the end of the loop at its mean speed so far; None at its first call, which starts the clock.

        What is done between its calls counts: with an adapter per task the answers between the trainings.
        """
        now, loop = self.clock(), self.loops.get(loop_name)
        # The same loop run once more begins below where it ended.
        if loop is None or loop.total != total or done <= loop.first or done < loop.done:
            self.loops[loop_name] = _Loop(total, first=done, done=done, started_s=now, printed_s=now)
            return None
        loop.done = done
        return (now - loop.started_s) / (done - loop.first) * (total - done)

    def _draw_cell(self, cell: "_AtWork", now: bool = False) -> None:
        left_s = max(0.0, max(other.end_s for other in self.at_work.values()) - self.clock()) + self.later_cells_s
        beside = f" (+{len(self.at_work) - 1})" if len(self.at_work) > 1 else ""
        text = f"{cell.number}/{self.cells} {cell.name}{beside}: {cell.phase}"
        # A cell may have more rows than one: of variants, and of a shorter context.
        done = min(self.rows, self.cells - len(self.at_work))
        self._draw(text, left_s, done, self.cells, now)

    def _draw(self, text: str, left_s: float | None, done: int, total: int, now: bool = False) -> None:
        """Draws the live line, where there is one and it was not drawn just before; clears it where all is done."""
        if self.bar and done >= total:
            self.bar.stop()
            return
        # At most one drawing in two seconds, unless something new begins.
        if not self.bar or (not now and self.clock() - self.drawn_s < _REFRESH_S):
            return
        self.drawn_s = self.clock()
        left = "" if left_s is None else f"{duration(left_s)} left"
        self.bar.start()
        self.bar.update(self.task, description=text, left=left, completed=done, total=total)
        self.bar.refresh()


@dataclass
class _AtWork:
    """A cell that is being measured: expected to end at `end_s` on the observer's clock."""

    number: int
    device: str
    name: str
    end_s: float
    phase: str = "start"


def _key(cell: Cell) -> tuple[str, str, int, str]:
    # The micro-batch of a row may be smaller than that which was tried first.
    return cell.model.name, cell.precision, cell.context, cell.device_name


@dataclass
class _Loop:
    """A loop under way: what was done at its first call, and what is done now."""

    total: int
    first: int = 0
    done: int = 0
    started_s: float = 0.0
    printed_s: float = 0.0
