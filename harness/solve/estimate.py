"""What is found out before a run: tokens of its tasks, the model's predicted pace, and what the record knows of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from harness.arc.task import Task
from harness.catalog import precisions
from harness.catalog.accelerators import Accelerator
from harness.catalog.weights import RANDOM
from harness.errors import UserError
from harness.hardware.environment import versions
from harness.predict.calibration import Calibration
from harness.predict.prediction import PredictRequest
from harness.predict.roofline import Trace
from harness.predict.trace_pool import UNSEEN, TraceKey, TracePool
from harness.records.arm import DECODERS, SELECTIONS, SHORTEN, TuneSpec
from harness.records.cell import record_key
from harness.records.solving import SolvedTask
from harness.records.stored import from_stored, to_stored
from harness.solve import pace as paces
from harness.solve.pace import FEW, Pace
from harness.solve.tokens import COUNT, CountJob, TaskTokens
from harness.workers.local import AskFailed, LocalExecutor

SETTING_RULE = 1


class EstimateObserver(Protocol):
    """Receives progress: messages, and counts of a stage."""

    def note(self, text: str) -> None: ...
    def count(self, verb: str, done: int, total: int) -> None: ...


def count_job(spec: TuneSpec, tasks: Sequence[Task], arm: str) -> CountJob:
    """The tokens that a run of `spec` needs to know; without weights there is no tokenizer to count with."""
    return CountJob(
        tasks=tuple(tasks),
        arm=arm,
        context=spec.context,
        encoding=spec.encoding,
        shorten=spec.too_long == SHORTEN,
        weights=None if spec.weights == RANDOM else spec.weights,
        recipe=spec.recipe,
    )


def request_of(spec: TuneSpec, accelerator: Accelerator, calibration: Calibration) -> PredictRequest:
    """What is predicted for one card of a run of `spec`."""
    return PredictRequest(
        spec=spec.model,
        precision=precisions.find(spec.precision),
        recipe=spec.recipe,
        context=spec.context,
        accelerator=replace(accelerator, count=1),
        calibration=calibration,
    )


def count_tokens(job: CountJob, executor: LocalExecutor, observer: EstimateObserver) -> dict[str, TaskTokens]:
    """The tokens of every task, counted in another process. Raises UserError as that job does."""
    observer.count("counting tokens of tasks:", 0, len(job.tasks))
    try:
        counted = [from_stored(raw, TaskTokens) for raw in executor.ask(COUNT, to_stored(job))]
    except AskFailed as problem:
        raise UserError(f"counting tokens failed: {problem}") from None
    return {task.id: task for task in counted}


def predicted_pace(request: PredictRequest, command: Sequence[str], observer: EstimateObserver) -> Pace:
    """The pace by prediction alone; `command` starts the processes that trace. Raises UserError where there is none."""
    return paces.predicted(request, traced(request.trace_keys(), request, command, observer))


def traced(
    keys: Mapping[int, TraceKey], request: PredictRequest, command: Sequence[str], observer: EstimateObserver
) -> dict[int, Trace]:
    """The traces of `request` with these `keys`, by context. Raises UserError where one fails."""
    with TracePool(versions(), lambda: LocalExecutor(command, UNSEEN)) as pool:
        made = pool.trace_all(list(keys.values()), _counter(observer, "tracing"))
    traces = {n: trace for n, trace in zip(keys, made, strict=True) if not isinstance(trace, str)}
    if len(traces) < len(keys):
        reason = next(trace for trace in made if isinstance(trace, str))
        raise UserError(f"{request.spec.name}: its seconds cannot be predicted: {reason}")
    return traces


def _counter(observer: EstimateObserver, verb: str) -> Callable[[int, int], None]:
    return lambda done, total: observer.count(verb, done, total)


def setting_of(spec: TuneSpec, arm: str, workers: int) -> str:
    """The key of runs whose seconds can be compared: all but tasks, steps, views, seed, learning rate are alike."""
    recipe = replace(spec.recipe, learning_rate=0.0)
    alike = replace(spec, tasks=(), steps=0, views=1, seed=0, dataset="", recipe=recipe)
    payload = {**to_stored(alike), "arm": arm}
    # On a CPU workers share its cores.
    return record_key({**payload, "workers": 1 if spec.device != "cpu" else workers}, SETTING_RULE, versions())


def known_pace(pace: Pace, rows: Sequence[SolvedTask], spec: TuneSpec, arm: str, workers: int) -> Pace:
    """The predicted `pace` as the record's rows of this setting show it, where there are any; else as rows do that were
    answered in other ways."""
    pace = pace.shared_by(workers)
    setting = setting_of(spec, arm, workers)
    if own := [row for row in rows if row.setting == setting]:
        return pace.answering(spec.decode, spec.select).measured_by(
            own, f"measured on {len(own)} tasks of this setting"
        )
    # What a row was expected to take has the cost of its own way in it: the factors are the same by assumption.
    ways = {setting_of(replace(spec, decode=d, select=s), arm, workers) for d in DECODERS for s in SELECTIONS}
    others = [row for row in rows if row.setting in ways]
    measured = pace.measured_by(others, f"measured on {len(others)} tasks that were answered in another way")
    return measured.answering(spec.decode, spec.select)


def fastest_workers(
    pace: Pace, rows: Sequence[SolvedTask], spec: TuneSpec, arm: str, tokens: Sequence[TaskTokens], most: int
) -> int:
    """Of 1 to `most` workers, which share a CPU's cores, as many as did most work by the record's `rows`; 1 where it
    says nothing. On a small model two of one thread do more than one of two, and hold the model twice."""
    seconds: dict[int, float] = {}
    for workers in range(1, most + 1):
        setting = setting_of(spec, arm, workers)
        if sum(row.setting == setting and row.ok and not row.cut for row in rows) >= FEW:
            measured = known_pace(pace, rows, spec, arm, workers)
            seconds[workers] = sum(measured.parts(t, spec.steps, spec.views).seconds for t in tokens) / workers
    return min(seconds, key=lambda workers: seconds[workers], default=1)
