"""Runs a fine-tune from the parent process: finished arms come from the record, the others run in a child process.

This process never imports torch. Where a child runs out of memory or dies, its arm gets a row with the reason, and
another child runs the arms after it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Protocol

from harness.arc.arms import Arm
from harness.catalog import trainable
from harness.catalog.precisions import NATIVE, compute_dtype, native_dtype, requested, resolve
from harness.errors import UserError
from harness.hardware.cpu_load import CpuMeter
from harness.hardware.environment import commit, versions
from harness.hardware.info import DeviceReport
from harness.records.arm import ROWS, ArmResult, TuneSpec, from_json
from harness.records.lock import Held, exclusive, reason
from harness.records.measurement import Place
from harness.records.store import RESULTS, Store, slug
from harness.records.stored import to_stored
from harness.tune.checkpoint import discard
from harness.tune.config import ArmsJob, TuneConfig
from harness.workers.cluster import Fleet
from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.look import reserve
from harness.workers.ray import Executor, RayExecutor
from harness.workers.spread import spread

ARMS_JOB = "harness.tune.experiment:run_arms"


class TuneObserver(Protocol):
    """Receives progress: messages, training steps of an arm, and questions answered."""

    def note(self, text: str) -> None: ...
    def step(self, arm: str, step: int, total: int, loss: float) -> None: ...
    def answers(self, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class TuneResult:
    folder: Path
    rows: list[ArmResult]  # of the config's arms, in their order


def run(
    config: TuneConfig, observer: TuneObserver, executor: Executor | None = None, fleet: Fleet | None = None
) -> TuneResult:
    """Runs the config's arms that are not in the record yet, and returns the results of all; on a cluster beside each
    other, on the kind of card that it has most of.

    Raises UserError for whatever the user must correct first.
    """
    several: Sequence[Executor] = ()
    if fleet:
        kind = max(fleet.kinds, key=lambda kind: kind.count)
        if len(fleet.kinds) > 1:
            observer.note(f"arms are compared on one kind of card: {kind.name}, the cluster's most; --on chooses")
        executor = RayExecutor(fleet.ray, kind, fleet.command)
        several = [executor] * kind.count
    with executor or LocalExecutor() as executor:
        observer.note("looking at the device ...")
        with reserve(executor, config.device, config.recipe.data_parallel) as report:
            executor.close()  # the process that looked at the device is not needed any more
            return run_on(report, config, observer, executor, several)


def run_on(
    report: DeviceReport,
    config: TuneConfig,
    observer: TuneObserver,
    executor: Executor,
    executors: Sequence[Executor] = (),
) -> TuneResult:
    """As `run`, on a device that the caller has reserved. With several `executors` arms run beside each other, each in
    a process of its own."""
    store = Store(config.results or RESULTS / slug(report.device.name), kind=ROWS)
    with alone_in(store.folder):
        store.repair(observer.note)
        spec = spec_of(config, report)
        arms = _Run(config, spec, report, store, observer, executors or (executor,))
        return TuneResult(store.folder, arms.all())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two fine-tunes, on two devices say, would both run the arms that the record lacks, and add each row twice."""
    path = folder / ".accuracy.lock"
    with ExitStack() as locked:
        try:
            locked.enter_context(exclusive(path))
        except Held:
            raise UserError(
                f"another fine-tune is writing to {folder}; let it end, or name another folder with --results"
            ) from None
        except OSError as problem:
            raise UserError(
                f"{path}: cannot be locked ({reason(problem)}); remove it, or name another folder with --results"
            ) from None
        yield


def spec_of(config: TuneConfig, report: DeviceReport) -> TuneSpec:
    precision = resolve(requested(config.precision or NATIVE.name), native_dtype(report.rates))
    compute = compute_dtype(precision, report.rates)
    if reason := trainable.overflow(config.model, compute):
        raise UserError(f"{config.model.name} {precision.name}: {reason}")
    return TuneSpec(
        model=config.model,
        weights=config.weights,
        precision=precision.name,
        compute_dtype=compute,
        device=report.device.id,
        device_name=report.device.name,
        recipe=config.recipe,
        dataset=config.dataset,
        tasks=tuple(task.id for task in config.tasks),
        steps=config.steps,
        context=config.context,
        encoding=config.encoding,
        views=config.views,
        seed=config.seed,
        curve=config.curve,
        scope=config.scope,
        too_long=config.too_long,
        decode=config.decode,
        select=config.select,
    )


@dataclass
class _Run:
    """One call of `run`, and the rows that it has so far."""

    config: TuneConfig
    spec: TuneSpec
    report: DeviceReport
    store: Store
    observer: TuneObserver
    executors: Sequence[Executor]
    versions: dict[str, str] = field(default_factory=versions)
    rows: dict[str, ArmResult] = field(default_factory=dict)  # by arm
    lock: RLock = field(default_factory=RLock)  # of all but the executors' work

    def all(self) -> list[ArmResult]:
        """The rows of all arms, in the config's order."""
        recorded = self.store.rows()
        for arm in self.config.arms:
            row = recorded.get(self._key(arm))
            if row and row.ok and not self.config.fresh and self._fits(row):
                # An earlier run may have been killed between writing the row and removing its checkpoint.
                discard(self.store.folder, row.key)
                self.observer.note(f"{arm.name}: from the record")
                self.rows[arm.name] = row
        # On a cluster an arm is a job: a machine that is lost takes no other arm with it.
        if len(self.executors) > 1 or not self.executors[0].on_this_machine:
            alone = [[arm] for arm in self.config.arms if arm.name not in self.rows]
            spread(alone, self.executors, self._in_a_child)
        # Every child finishes at least one arm, with a result or a failure, so this ends.
        while pending := [arm for arm in self.config.arms if arm.name not in self.rows]:
            self._in_a_child(pending, self.executors[0])
        return [self.rows[arm.name] for arm in self.config.arms]

    def _key(self, arm: Arm) -> str:
        return self.spec.key(arm.name, self.versions, self.report.environment)

    def _fits(self, row: ArmResult) -> bool:
        """Whether a row of the record has answers to these tasks alone: pictures are drawn from them."""
        inputs = {task.id: len(task.test_inputs) for task in self.config.tasks}
        return all(name in inputs and len(grids) <= inputs[name] for name, grids in row.attempts.items())

    def _in_a_child(self, pending: Sequence[Arm], executor: Executor) -> None:
        """Runs `pending` in one child; if the child fails, the arm it was at gets a row with the reason."""
        log = self.store.folder / "logs" / f"{self._key(pending[0])}.log"
        log.parent.mkdir(exist_ok=True)
        limits = RunLimits(log=log, guard_memory=self.report.device.kind == "cpu")
        job = ArmsJob(
            spec=self.spec,
            tasks=tuple(self.config.tasks),
            solutions={task.id: self.config.solutions[task.id] for task in self.config.tasks},
            arms=tuple(arm.name for arm in pending),
            # Checkpoints are for a process that begins again on this disk.
            folder=str(self.store.folder) if executor.on_this_machine else "",
            fresh=self.config.fresh,
            environment=self.report.environment,
            report=self.report if self.config.autotune else None,
        )
        meter = CpuMeter()
        # Rows arrive as events (`_hear`), so finished arms are safe if the child dies later.
        outcome = executor.run(
            ARMS_JOB, to_stored(job), limits, partial(self._hear, place=[]), self.spec.recipe.data_parallel
        )
        load = meter.read()
        with self.lock:
            alone_here = executor.on_this_machine and len(self.executors) == 1
            if alone_here and load.crowds(self.report.device.threads):
                self.observer.note(f"others used {load} meanwhile: seconds of training and decoding are too long")
            failure = outcome.result or {"status": outcome.status, "reason": outcome.reason}
            if unfinished := [arm for arm in pending if arm.name not in self.rows]:
                self._failed(unfinished[0], failure["status"], failure["reason"])

    def _hear(self, event: dict[str, Any], place: list[Place]) -> None:
        """`place` is that of the job, as soon as it is known."""
        with self.lock:
            self._take(event, place)

    def _take(self, event: dict[str, Any], place: list[Place]) -> None:
        match event.pop("event", None):
            case "place":
                place[:] = [event["place"]]
            case "note":
                self.observer.note(event["text"])
            case "step":
                self.observer.step(event["arm"], event["step"], event["total"], event["loss"])
            case "answers":
                self.observer.answers(event["done"], event["total"])
            case "row":
                self._finished(replace(from_json(event["row"]), place=place[0] if place else None))

    def _finished(self, row: ArmResult) -> None:
        self.store.add(row)
        discard(self.store.folder, row.key)
        self.rows[row.arm] = row
        spent = f"{row.train_s:.0f} s training, {row.decode_s:.0f} s decoding"
        if row.score_s:
            spent += f", {row.score_s:.0f} s scoring"
        self.observer.note(f"{row.arm}: {sum(row.solved)} of {len(row.scores)} tasks, {spent}")

    def _failed(self, arm: Arm, status: str, reason: str) -> None:
        """Stores the failure; the checkpoint stays, so that a later run can resume the arm."""
        if status == "oom":
            reason += f"; at {self.spec.context} tokens: try a shorter --context or --precision int4"
        started = datetime.now(UTC).isoformat(timespec="seconds")
        failure: dict[str, Any] = {"status": status, "reason": reason, "environment": self.report.environment}
        row = ArmResult.of(self.spec, arm.name, self.versions, commit=commit(), started=started, **failure)
        self.store.add(row)
        self.rows[arm.name] = row
        self.observer.note(f"{arm.name}: {status}: {reason}")
