"""The main job: every cell measured once, each in its own process, the record always whole."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Any

from harness.catalog import precisions
from harness.catalog.precisions import lower_bound
from harness.catalog.weights import RANDOM
from harness.hardware.cpu_load import CpuMeter
from harness.hardware.environment import commit, versions
from harness.hardware.info import DeviceReport
from harness.measure import autotune, plan
from harness.measure.config import SweepConfig, SweepObserver, SweepResult
from harness.measure.foresight import Foresight
from harness.measure.quiet import Quiet
from harness.predict.cells import CellPredictor
from harness.predict.variants import recipe_variants
from harness.records.cell import Cell
from harness.records.measurement import CardState, Measurement
from harness.records.store import RESULTS, Store, slug
from harness.records.stored import from_stored, to_stored
from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.look import reserve
from harness.workers.process import Outcome
from harness.workers.ray import Executor
from harness.workers.spread import spread

CELL = "harness.measure.worker:measure_cell"
_REAL = ("ok", "oom", "unsupported", "crashed", "killed", "timeout")  # a process ran and ended so
_CHANCE = ("crashed", "killed", "timeout")
_SAMPLES = ("warmup_micro_s", "warmup_optimizer_s", "micro_s", "optimizer_s", "losses", "arc_step_s", "arc_step_tokens")


def run(config: SweepConfig, observer: SweepObserver, executor: Executor | None = None) -> SweepResult:
    """Measures the cells that are not in the record yet. Raises UserError for what the user must mend first.

    Killed at any point and called again, it goes on with the first cell that has no row.
    """
    meter = CpuMeter()
    with executor or LocalExecutor() as executor:
        observer.note("looking at the device ...")
        with reserve(executor, config.device, config.recipe.data_parallel) as report:
            return run_on(report, config, observer, (executor,), meter)


def run_on(
    report: DeviceReport,
    config: SweepConfig,
    observer: SweepObserver,
    executors: Sequence[Executor],
    meter: CpuMeter,
) -> SweepResult:
    """As `run`, on a device that the caller has reserved; `meter` was started before the device was looked at.

    Each of `executors` runs a cell at a time, all on devices like the reported one; the first one traces.
    """
    contexts = config.contexts[report.device.kind]
    plan.check_windows([spec for spec, _ in config.models], contexts)
    store = Store(config.results or RESULTS / slug(report.device.name))
    (store.folder / "logs").mkdir(exist_ok=True)
    store.repair(observer.note)
    plan.check_names([spec for spec, _ in config.models], store.rows().values())
    here = executors[0].on_this_machine
    quiet = Quiet(report.device, meter, observer.note, observer.phase, config.force, here)
    rows = _Sweep(config, report, store, observer, executors, quiet).all(contexts)
    return SweepResult(store.folder, report, rows)


@dataclass(frozen=True)
class _Turn:
    """A cell's number in the sweep, and what runs it."""

    number: int
    executor: Executor


class _Sweep:
    def __init__(
        self,
        config: SweepConfig,
        report: DeviceReport,
        store: Store,
        observer: SweepObserver,
        executors: Sequence[Executor],
        quiet: Quiet,
    ):
        self.config, self.report, self.store = config, report, store
        self.observer, self.executors, self.quiet = observer, executors, quiet
        self.lock = Lock()  # held by whoever does anything here; not while an executor runs a cell
        self.waiting: list[Cell] = []  # cells that nobody has begun
        self.groups = 1  # that are not done
        self.soaked: Counter[Executor] = Counter()  # cells that were soaked for longer, by executor: its cards' first
        self.versions, self.commit = versions(), commit()
        self.announced = False  # whether the observer knows that cells are being predicted
        predictor = CellPredictor(report, store.folder, self.versions, executors[0].ask)
        self.foresight = Foresight(config, report, predictor)
        self.judge = self.foresight.judge

    def all(self, contexts: Sequence[int]) -> list[Measurement]:
        cells = plan.cells(self.config, contexts, self.report)
        if shard := self.config.shard:
            self.observer.note(f"{shard.sentence}: {len(shard.of(cells))} of {len(cells)} cells")
            cells = shard.of(cells)
        self.observer.begin(self.report.device.name, len(cells))
        if origin := self.foresight.predictor.accelerator.origin:
            self.observer.note(f"predicted {origin}")
        if self.foresight.on_card and self.config.fill_memory:
            self.announce(f"predicting on {self.report.device.name} ...")
        self.waiting = [self.foresight.sized(cell) for cell in cells]
        # A group's cells stay together: what runs out of memory at one context does at every longer one.
        groups = plan.groups(list(enumerate(self.waiting, 1)))
        self.groups = len(groups)
        return [row for rows in spread(groups, self.executors, self.group) for row in rows]

    def group(self, cells: Sequence[tuple[int, Cell]], executor: Executor) -> list[Measurement]:
        """The rows of one model's cells in one precision, with their numbers in the sweep."""
        done: list[Measurement] = []
        with self.lock:
            for number, cell in cells:
                self.waiting.remove(cell)
                done.append(self.tuned(_Turn(number, executor), cell, done))
            # A model too slow at every context is measured at a shorter one, so that it has a row to project from.
            if all(row.status == "too_slow" for row in done) and (shorter := self.foresight.shorter(cells[0][1])):
                done.insert(0, self.one(_Turn(number, executor), self.foresight.variants(shorter), []))
            self.groups -= 1
        return done

    def tuned(self, turn: "_Turn", cell: Cell, earlier: Sequence[Measurement]) -> Measurement:
        """The row of `cell`, or with autotune that of its fastest variant that fits."""
        if not self.config.autotune or self.judge(cell).status in ("beyond_window", "unsupported"):
            return self.one(turn, self.foresight.variants(cell), earlier)
        variants = recipe_variants(cell, lambda variant: self.judge(variant).prediction)
        return autotune.best(variants, lambda variant: self.one(turn, [variant], []))

    def one(self, turn: "_Turn", variants: Sequence[Cell], earlier: Sequence[Measurement]) -> Measurement:
        """The row of the first of `variants` that fits, under the key of the first of all: from the record, or judged
        without a run where none is worth it, or measured."""
        # The record answers for what it has, unless the user wants it measured again.
        key = variants[0].key(self.versions, self.report.environment)
        recorded = self.store.rows().get(key)
        if recorded and self.stands(recorded):
            self.observer.row(recorded, measured=False)
            return recorded
        # One that surely does not fit says nothing of a smaller one: the last one's word counts.
        first = next((i for i, cell in enumerate(variants) if not self.judge(cell).status), len(variants) - 1)
        judgement, blank = self.judge(variants[first]), self.blank(key, variants[first])
        # What ran out of memory at a shorter context will at this one.
        ran_out = next((row for row in earlier if row.status == "oom"), None)
        if ran_out and judgement.status != "beyond_window":
            row = replace(blank, reason=f"context {ran_out.cell.context} ran out of memory already")
        elif judgement.status:
            row = replace(blank, status=judgement.status, reason=judgement.reason)
        else:
            row = autotune.best(variants[first:], lambda cell: self.measured(turn, self.blank(key, cell)), enough=1)
            row = autotune.in_place_of(row, variants[0], self.judge(variants[0]).reason or "ran out of memory")
        # A judgement that has not changed is not written again.
        if recorded is None or row.status in _REAL or (row.status, row.reason) != (recorded.status, recorded.reason):
            self.store.add(row)
        self.observer.row(row, measured=row.status in _REAL)
        return row

    def announce(self, text: str) -> None:
        """Says once that cells are being predicted, which takes seconds each."""
        if not self.announced:
            self.announced = True
            self.observer.note(text)

    def blank(self, key: str, cell: Cell) -> Measurement:
        """The row of a cell before it ran, or without it."""
        judgement = self.judge(cell)
        row = Measurement(
            key,
            cell,
            "skipped",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=self.versions,
            commit=self.commit,
            environment=self.report.environment,
            rate=self.report.rates.get(cell.compute_dtype),
            bandwidth=self.report.bandwidth,
            device_total_bytes=self.report.device.total_bytes,
            cards=self.report.device.alike,
            estimate_s=judgement.smallest_run_s,
        )
        if predicted := judgement.prediction:
            row = replace(row, work=predicted.trace.work, params=predicted.trace.params, answering=predicted.answers)
        return row

    def stands(self, recorded: Measurement) -> bool:
        """Whether a row of the record answers for its cell now."""
        if self.config.fresh or (self.config.retry and recorded.status in _CHANCE):
            return False
        # A row whose steps over ARC's lengths were not tried does not answer where they are asked for.
        if recorded.ok and self.config.arc_lengths and recorded.arc_pack_tokens is None:
            return False
        slow = (
            recorded.status == "too_slow"
            and recorded.estimate_s is not None
            and recorded.estimate_s > self.foresight.cap_s
        )
        return recorded.status in _REAL or slow

    def measured(self, turn: "_Turn", blank: Measurement) -> Measurement:
        """`blank` with what a process of its own measured, or how that process ended."""
        cell = blank.cell
        # The prediction is stored beside the measurement, to be held against it later.
        if predicted := self.judge(cell).prediction:
            peak = round(predicted.peak_bytes)
            blank = replace(blank, predicted_micro_s=predicted.micro_s, predicted_peak_bytes=peak)
        self.announce(f"predicting {len(self.waiting) + 1} cells ...")
        # A group has one executor at a time.
        beside = min(len(self.executors), self.groups)
        later_s = sum(map(self.foresight.expected_s, self.waiting)) / beside
        self.observer.cell(turn.number, cell, self.foresight.expected_s(cell), later_s)
        self.quiet.wait()
        # Twice the cap: a prediction may be off by that much before a process is taken to hang.
        start = datetime.now(UTC)
        ahead = self.foresight
        is_first = self.soaked[turn.executor] < self.executors.count(turn.executor)
        soak_s = ahead.soak_s(is_first)
        self.soaked[turn.executor] += is_first
        payload = {
            "cell": to_stored(cell),
            "sample_seconds": ahead.sample_s,
            "seed": self.config.seed,
            "soak_seconds": soak_s,
            "arc_seconds": ahead.arc_s,
        }
        limits = RunLimits(
            log=self.store.folder / "logs" / f"{blank.key}.log",
            timeout_s=ahead.sample_s + 2 * ahead.cap_s + soak_s + 4 * ahead.arc_s,
            guard_memory=self.report.device.kind == "cpu",
        )
        with self.unlocked():
            hear = partial(self.hear, turn.number)
            outcome = turn.executor.run(CELL, payload, limits, hear, cell.recipe.data_parallel)
        if is_first and (outcome.result or {}).get("status") != "ok":
            self.soaked[turn.executor] -= 1  # it ended before it was warm
        measured = dict(outcome.result or {"status": outcome.status, "reason": outcome.reason})
        measured |= {name: tuple(measured.get(name, ())) for name in _SAMPLES}
        measured["card"] = tuple(from_stored(state, CardState) for state in measured.get("card", ()))
        wall_s = (datetime.now(UTC) - start).total_seconds()
        row = replace(blank, wall_s=wall_s, **{"params": blank.params, **measured})
        bound = lower_bound(precisions.find(cell.precision), self.report.device.kind)
        bounds = (bound,) if bound and row.ok and cell.weights == RANDOM else ()
        again = ("its machine was lost at first; done again on another",) if _done_again(outcome) else ()
        notes = (*row.notes, *bounds, *again, *self.quiet.sampled(row))
        return replace(row, notes=notes, place=outcome.place)

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Lets other cells go on meanwhile."""
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()

    def hear(self, number: int, event: dict[str, Any]) -> None:
        """Events of the process of a cell."""
        if event.get("event") != "place":
            with self.lock:
                self.observer.phase({**event, "cell": number, "device": self.report.device.name})


def _done_again(outcome: Outcome) -> bool:
    return outcome.place is not None and outcome.place.attempt > 1
