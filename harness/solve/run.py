"""Runs a whole task set before a deadline: looks at the device, plans, and keeps the queue until all is answered.

This process never imports torch. What is on disk after every task is all that another start needs: rows, a state with
the deadline, and a submission.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from harness.catalog.precisions import native_dtype
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.hardware.info import Device, DeviceReport
from harness.predict.cells import device_at_hand
from harness.records import solving
from harness.records.arm import ROWS as ARMS
from harness.records.arm import TASK, TuneSpec
from harness.records.measurement import OK
from harness.records.store import RESULTS, Store, read, slug
from harness.solve import confidence, estimate
from harness.solve import state as states
from harness.solve.config import SolveConfig, run_key
from harness.solve.pace import Pace
from harness.solve.progress import Progress
from harness.solve.resume import must_be_possible, reserve_s, resumed
from harness.solve.simulation import Foreseen, foresee, uncertainty
from harness.solve.task_queue import Queue
from harness.solve.tokens import TaskTokens, unasked
from harness.tune.run import alone_in, spec_of
from harness.workers.cluster import Fleet
from harness.workers.local import LocalExecutor
from harness.workers.look import find, report_on, reserve
from harness.workers.pool import Pool
from harness.workers.ray import RayExecutor
from harness.workers.ray_pool import RayPool


class SolveObserver(Protocol):
    """Receives progress: messages, counts of a stage, and how the run stands."""

    def note(self, text: str) -> None: ...
    def count(self, verb: str, done: int, total: int) -> None: ...
    def progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SolveResult:
    """What a run has come to. `planned` is what was foreseen at its first start, `first_pass_h` the hours from then
    until every task had been tried once, None where one was not; `began`, `ended`, `end` are seconds since the epoch.
    """

    folder: Path
    rows: list[solving.SolvedTask]
    planned: Foreseen | None
    first_pass_h: float | None
    began: float
    ended: float
    end: float
    expected: confidence.Expected | None = None  # of tasks whose solutions are not known


def run(
    config: SolveConfig, observer: SolveObserver, executor: LocalExecutor | None = None, fleet: Fleet | None = None
) -> SolveResult:
    """Answers the config's tasks until its deadline, on this machine or on a cluster's cards. Raises UserError for what
    the user must correct first."""
    started = time.time()  # looking, counting and predicting are of the budget too
    with executor or LocalExecutor() as here:
        observer.note("looking at the device ...")
        # The first kind of a cluster's cards stands for all in the plan; how slow each is shows with its first tasks.
        there = RayExecutor(fleet.ray, fleet.kinds[0], here.command) if fleet else here
        device = find(there, config.tune.device)
        cards = _workers(config, device, fleet)
        gpus = cards if device.kind == "cuda" and not fleet else 1
        with reserve(there, device.id, gpus) as report:
            if fleet:
                _must_compute_alike(fleet, report, here.command)
            store = Store(config.tune.results or RESULTS / slug(device.name), kind=solving.ROWS)
            with alone_in(store.folder):
                store.repair(observer.note)
                for text in read(store.path, store.kind)[1].sentences(store.kind.name):
                    observer.note(text)
                spec = replace(spec_of(config.tune, report), scope=TASK, device_name=device.name)
                tokens = estimate.count_tokens(estimate.count_job(spec, config.share, config.arm), here, observer)
                request = estimate.request_of(spec, *device_at_hand(report, store.folder.parent))
                pace = estimate.predicted_pace(request, here.command, observer)
                here.close()  # the process that looked at the device is not needed any more
                if device.kind == "cpu" and not (config.workers or fleet):
                    cards = estimate.fastest_workers(
                        pace, list(store.rows().values()), spec, config.arm, list(tokens.values()), os.cpu_count() or 1
                    )
                ready = _Ready(
                    spec=spec,
                    workers=cards,
                    tokens=tokens,
                    pace=pace,
                    command=here.command,
                    fleet=fleet,
                    budget_end=started + config.budget_s,
                )
                return _run_on(ready, config, store, observer)


def _must_compute_alike(fleet: Fleet, first: DeviceReport, command: Sequence[str]) -> None:
    """Raises UserError where the kinds of a cluster's cards have other native 16-bit dtypes: a run has one, which would
    be emulated on some of them."""
    wanted = native_dtype(first.rates)
    for kind in fleet.kinds[1:]:
        other = RayExecutor(fleet.ray, kind, command)
        own = native_dtype(report_on(other, find(other, "cuda")).rates)
        if own != wanted:
            raise UserError(
                f"{first.device.name} computes in {wanted} and {kind.name} in {own}: one run cannot be of both; "
                "choose cards with --on"
            )


def _workers(config: SolveConfig, device: Device, fleet: Fleet | None) -> int:
    """One worker per card, unless the user says how many. Raises UserError for more than there is to work with."""
    if fleet:
        if (config.workers or 0) > fleet.count:
            raise UserError(
                f"--workers {config.workers}: the Ray cluster has {fleet.count}; others would wait for ever"
            )
        return config.workers or fleet.count
    workers = config.workers or 1 + len(device.others) * (config.tune.device == "auto")
    if device.kind == "cpu" and workers > (cores := os.cpu_count() or 1):
        raise UserError(f"--workers {workers}: this machine has {cores} cores; more workers would wait for one another")
    return workers


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """What is known before the first worker starts; `budget_end` is when a budget that begins with this start is over,
    in seconds since the epoch."""

    spec: TuneSpec
    workers: int
    tokens: dict[str, TaskTokens]
    pace: Pace
    command: Sequence[str]
    fleet: Fleet | None
    budget_end: float

    @property
    def sharing(self) -> int:
        """Workers that share a machine's cores, on which their seconds depend."""
        return RayPool.sharing if self.fleet else self.workers

    def pool(self, folder: Path) -> Pool | RayPool:
        """The workers; those of this machine have their logs in `folder`."""
        if self.fleet:
            return RayPool(self.fleet.ray, self.fleet.kinds, self.workers, self.command)
        environments: list[dict[str, str]] = [{} for _ in range(self.workers)]
        return Pool(environments, folder, self.command)


def _run_on(ready: _Ready, config: SolveConfig, store: Store, observer: SolveObserver) -> SolveResult:
    spec, workers, sharing = ready.spec, ready.workers, ready.sharing
    key, setting = run_key(spec, config.arm, config.tasks, versions()), estimate.setting_of(spec, config.arm, sharing)
    state, rows = resumed(config, key, store, ready.budget_end, observer.note)
    pace = estimate.known_pace(ready.pace, list(store.rows().values()), spec, config.arm, sharing)
    queue = Queue(
        config=config,
        spec=spec,
        key=key,
        setting=setting,
        store=store,
        pace=pace,
        tokens=ready.tokens,
        workers=workers,
        end=state.end - reserve_s(state),
        reserve_s=reserve_s(state),
        observer=observer,
        pool=ready.pool(store.folder / "logs" / f"solve-{key}"),
    )
    for row in rows:
        queue.take(row)
    if not rows:
        must_be_possible(queue, pace, going_on=state.planned is not None)
    # Valid from the first second on; a run that is refused leaves the file of another as it was.
    queue.write()
    if text := unasked(ready.tokens.values(), spec.context):
        observer.note(text)
    if state.planned is None and not rows:
        left_s, unsure = queue.end - time.time(), uncertainty(pace)
        planned = foresee(queue.expected, queue.least, left_s, [1.0] * workers, unsure, config.passes)
        state = replace(state, planned=planned)
        states.save(store.folder, state)
        observer.note(planned.sentence(len(queue.expected)))
        observer.note(f"seconds are {pace.source}")
    ended = max((_ended(row) for row in queue.rows), default=state.began)
    # Rows of a finished run may have been lost since; after the deadline nothing is done.
    if queue.now() < queue.end and (not state.finished or queue.scheduler.waiting):
        done, ended = queue.run(), time.time()
        state = replace(state, finished=done, first_pass_h=_first_pass_h(queue, state.began))
        states.save(store.folder, state)
    return SolveResult(
        folder=store.folder,
        rows=queue.rows,
        planned=state.planned,
        first_pass_h=state.first_pass_h,
        began=state.began,
        ended=ended,
        end=state.end,
        expected=_expected(config, store, spec, sharing, queue.rows),
    )


def _expected(
    config: SolveConfig, store: Store, spec: TuneSpec, sharing: int, rows: Sequence[solving.SolvedTask]
) -> confidence.Expected | None:
    """How many of the tasks without a solution are right, by answers of this setting; None where too few are known."""
    setting = estimate.setting_of(spec, config.arm, sharing)
    own = [row for row in store.rows().values() if row.setting == setting]
    known = confidence.known_of(own)
    for result in Store(store.folder, kind=ARMS).rows().values():
        if result.ok and estimate.setting_of(result.spec, result.arm, sharing) == setting:
            known += confidence.known_of_arm(result)
    inputs = {task.id: len(task.test_inputs) for task in config.share if task.id not in config.solutions}
    if not inputs or len(known) < confidence.LEAST:
        return None
    shares = {task: confidence.both_shares(row for row in rows if row.task == task) for task in inputs}
    return confidence.expected(shares, inputs, known)


def _first_pass_h(queue: Queue, began: float) -> float | None:
    """Hours from `began` until every task that fits had been tried once to the end of its time; None where one was
    not, for the run was over or its worker died each time."""
    first: dict[str, float] = {}
    for row in queue.rows:
        if row.votes or row.status in (OK, "timeout"):
            first[row.task] = min(_ended(row), first.get(row.task, _ended(row)))
    return (max(first.values()) - began) / 3600 if first.keys() >= queue.expected.keys() else None


def _ended(row: solving.SolvedTask) -> float:
    return datetime.fromisoformat(row.started).timestamp() + row.seconds
