"""The main job: every cell measured once, each in its own process, the record always whole."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from harness.catalog import precisions as catalog
from harness.catalog.models import Catalog
from harness.catalog.precisions import DTYPES
from harness.errors import UserError
from harness.hardware.environment import commit, versions
from harness.measure import autotune, plan
from harness.measure.config import SweepConfig
from harness.measure.device_lock import hold
from harness.measure.timing import MIN_SECONDS
from harness.predict.cells import CellPredictor, too_big
from harness.predict.variants import candidates
from harness.records.cell import Cell, ModelSpec
from harness.records.measurement import FlopCount, MatmulSpeed, Measurement
from harness.records.store import RESULTS, Store, slug
from harness.records.stored import from_stored, to_stored
from harness.workers.process import SURVEY, WORKER, Survey, run_worker

_REAL = ("ok", "oom", "unsupported", "crashed", "killed", "timeout")  # a process ran, and this is what came of it
_CHANCE = ("crashed", "killed", "timeout")


class SweepObserver(Protocol):
    """Whoever looks on. `seconds` are expectations, and `done` says whether the row was measured just now."""

    def note(self, text: str) -> None: ...
    def begin(self, device_name: str, cells: int) -> None: ...
    def cell(self, number: int, cell: Cell, seconds: float, seconds_after: float) -> None: ...
    def phase(self, event: dict[str, Any]) -> None: ...
    def row(self, row: Measurement, measured: bool) -> None: ...


@dataclass(frozen=True)
class SweepResult:
    folder: Path
    device: dict[str, Any]
    rates: dict[str, MatmulSpeed]
    rows: list[Measurement]


def run(
    asked: SweepConfig,
    known: Catalog,
    watch: SweepObserver,
    worker: Sequence[str] = WORKER,
    survey: Sequence[str] = SURVEY,
) -> SweepResult:
    """Measures what is asked and not yet in the record. Raises UserError for what the user must mend first.

    Killed at any point and called again it goes on with the first cell that has no row.
    """
    with TemporaryDirectory() as logs:
        log = Path(logs) / "survey.log"
        watch.note("looking at the device ...")
        # The process that touched the card ends before any cell starts: what it holds there would be missing.
        with Survey(log, survey) as look:
            device = look.ask(ask="device", device=asked.device, gpus=asked.recipe.data_parallel)
            rates = look.ask(ask="rates", device=device["id"], dtypes=DTYPES)
        rates = {name: from_stored(rate, MatmulSpeed) for name, rate in rates.items()}
        kind = device["id"].partition(":")[0]
        contexts = asked.contexts or known.defaults.contexts[kind]
        _check_windows([spec for spec, _ in asked.models], contexts)
        folder = asked.results or RESULTS / slug(device["name"])
        store = Store(folder)
        (folder / "logs").mkdir(exist_ok=True)
        if bad := store.repair():
            watch.note(f"{bad} corrupt lines of {store.path} moved to {folder / store.kind.aside}; the rest is used")
        with hold(asked.locks, device), Survey(log, survey) as look:
            sweep = _Sweep(asked, known, watch, worker, look, device, rates, store, kind)
            rows = sweep.all(contexts)
    return SweepResult(folder, device, rates, rows)


class _Sweep:
    def __init__(self, asked, known, watch, worker, look, device, rates, store, kind):
        self.asked, self.watch, self.worker, self.look = asked, watch, worker, look
        self.device, self.rates, self.store = device, rates, store
        self.sample_s = asked.sample_seconds or known.defaults.sample_seconds[kind]
        self.cap_s = asked.cap_seconds or known.defaults.cap_seconds[kind]
        self.versions, self.commit = versions(), commit()
        self.works: dict[str, tuple[FlopCount, int] | str] = {}
        self.foreseen = CellPredictor(device, rates, store.folder, self.versions, look.ask)

    def all(self, contexts: Sequence[int]) -> list[Measurement]:
        asked = self.asked
        cells = plan.cells(
            asked.models, asked.precisions, contexts, self.rates, asked.recipe, self.device["id"], self.device["name"]
        )
        self.watch.begin(self.device["name"], len(cells))
        rows, number = [], 0
        for group in _groups(cells):
            done: list[Measurement] = []
            for cell in group:
                number += 1
                done.append(self.fitted(number, cell, done, cells[number:]))
            if all(row.status == "too_slow" for row in done) and (shorter := self.shorter(group[0])):
                done.insert(0, self.one(number, shorter, [], cells[number:]))
            rows += done
        return rows

    def fitted(self, number: int, cell: Cell, earlier: Sequence[Measurement], later: Sequence[Cell]) -> Measurement:
        """The row of `cell`, or where it is asked for of its fastest variant that fits."""
        if not self.asked.fit:
            return self.one(number, cell, earlier, later)
        if cell.context > cell.model.max_context or isinstance(self.work(cell), str):
            return self.one(number, cell, earlier, later)
        variants = candidates(cell, self.foreseen.of)
        return autotune.best(variants, lambda variant: self.one(number, variant, [], later))

    def one(self, number: int, cell: Cell, earlier: Sequence[Measurement], later: Sequence[Cell]) -> Measurement:
        """The row of `cell`: from the record, or judged without a run where none is worth it, or measured."""
        key = cell.key(self.versions)
        known = self.store.rows().get(key)
        if known and self.stands(known):
            self.watch.row(known, measured=False)
            return known
        blank = Measurement(
            key,
            cell,
            "skipped",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=self.versions,
            commit=self.commit,
            rate=self.rates.get(cell.compute_dtype),
            device_total_bytes=self.device["total_bytes"],
        )
        row = self.not_worth_a_run(blank, earlier) or self.measured(number, blank, later)
        if known is None or row.status in _REAL or (row.status, row.reason) != (known.status, known.reason):
            self.store.add(row)
        self.watch.row(row, measured=row.status in _REAL)
        return row

    def stands(self, known: Measurement) -> bool:
        """Whether a row of the record answers for its cell now."""
        if self.asked.fresh or (self.asked.retry and known.status in _CHANCE):
            return False
        slow = known.status == "too_slow" and known.estimate_s is not None and known.estimate_s > self.cap_s
        return known.status in _REAL or slow

    def not_worth_a_run(self, blank: Measurement, earlier: Sequence[Measurement]) -> Measurement | None:
        cell = blank.cell
        if cell.context > cell.model.max_context:
            reason = f"the model's window is {cell.model.max_context} tokens"
            return replace(blank, status="beyond_window", reason=reason)
        for before in earlier:
            if before.status == "oom":
                return replace(blank, reason=f"context {before.cell.context} ran out of memory already")
        work = self.work(cell)
        if isinstance(work, str):
            return replace(blank, status="unsupported", reason=work)
        rate = self.rates.get(cell.compute_dtype)
        if rate is None:
            return replace(
                blank, status="unsupported", reason=f"this device has no {cell.compute_dtype} matrix product"
            )
        expected = self.foreseen.of(cell)
        if expected and (reason := too_big(expected, self.device["total_bytes"])):
            return replace(blank, reason=reason, work=work[0], params=work[1])
        estimate = plan.estimate_s(cell, *work, rate)
        if estimate <= self.cap_s:
            return None
        each = plan.micro_step_s(cell, work[0], rate)
        native = catalog.native_dtype(self.rates)
        use = f"; {cell.compute_dtype} is emulated here: use {native}" if not rate.native else ""
        reason = f"not started: about {each:.0f} s a micro-step, {estimate:.0f} s at least, cap {self.cap_s:.0f} s{use}"
        return replace(blank, status="too_slow", reason=reason, work=work[0], params=work[1], estimate_s=estimate)

    def measured(self, number: int, blank: Measurement, later: Sequence[Cell]) -> Measurement:
        cell, (work, params) = blank.cell, self.work(blank.cell)
        if expected := self.foreseen.of(cell):
            blank = replace(blank, predicted_micro_s=expected.micro_s, predicted_peak_bytes=round(expected.peak_bytes))
        estimate = plan.estimate_s(cell, work, params, blank.rate)
        self.watch.cell(number, cell, self.expected_s(cell), sum(map(self.expected_s, later)))
        start = datetime.now(UTC)
        outcome = run_worker(
            {"cell": to_stored(cell), "sample_seconds": self.sample_s, "seed": self.asked.seed},
            self.store.folder / "logs" / f"{blank.key}.log",
            timeout_s=self.sample_s + 2 * self.cap_s,
            on_event=self.watch.phase,
            command=self.worker,
        )
        seen = {**outcome.seen}
        for name in ("warmup_micro_s", "warmup_optimizer_s", "micro_s", "optimizer_s", "losses"):
            seen[name] = tuple(seen.get(name, ()))
        return replace(
            blank,
            status=outcome.status,
            reason=outcome.reason,
            work=work,
            estimate_s=estimate,
            wall_s=(datetime.now(UTC) - start).total_seconds(),
            **{"params": params, **seen},
        )

    def shorter(self, cell: Cell) -> Cell | None:
        """`cell` at the longest power of two below its context whose smallest run stays under the cap.

        None where there is no such context, or where the dtype is emulated: the native one is measured beside it.
        """
        rate = self.rates.get(cell.compute_dtype)
        if rate is None or not rate.native or isinstance(work := self.work(cell), str):
            return None
        context = 1 << ((cell.context - 1).bit_length() - 1)
        while context >= plan.SHORTEST:
            tried = replace(cell, context=context, why=f"shorter: {cell.context} and above are too slow")
            if plan.estimate_s(tried, *work, rate) <= self.cap_s:
                return tried
            context //= 2
        return None

    def work(self, cell: Cell) -> tuple[FlopCount, int] | str:
        """FLOPs and parameters of the cell's model, or why it cannot be built; asked for once."""
        name = cell.model.name
        if name not in self.works:
            self.watch.note(f"counting the FLOPs of {name} ...")
            said = self.look.ask(ask="work", model=to_stored(cell.model), recipe=to_stored(cell.recipe))
            self.works[name] = said.get("unsupported") or (from_stored(said["work"], FlopCount), said["params"])
        return self.works[name]

    def expected_s(self, cell: Cell) -> float:
        """About how long the cell's process will run; 0 for a cell that will not be started."""
        work, rate = self.works.get(cell.model.name), self.rates.get(cell.compute_dtype)
        if work is None:
            return self.sample_s
        if isinstance(work, str) or rate is None or cell.context > cell.model.max_context:
            return 0.0
        smallest, each = plan.estimate_s(cell, *work, rate), plan.micro_step_s(cell, work[0], rate)
        if smallest > self.cap_s:
            return 0.0
        if rate.native and (expected := self.foreseen.of(cell, ask=False)):
            smallest += plan.MIN_MICRO_STEPS * (expected.micro_s - each)
            each = expected.micro_s
        enough = max(MIN_SECONDS, 10 * each)
        return smallest + min(max(0.0, self.sample_s - plan.MIN_MICRO_STEPS * each), enough)


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model.name, cell.precision), []).append(cell)
    return list(groups.values())


def _check_windows(models: Sequence[ModelSpec], contexts: Sequence[int]) -> None:
    if all(context > spec.max_context for spec in models for context in contexts):
        windows = ", ".join(f"{spec.name} {spec.max_context}" for spec in models)
        raise UserError(f"every context asked for is beyond the window ({windows} tokens); ask for a shorter one")
