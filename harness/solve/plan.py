"""A run before it is begun, here or on cards that are not at hand: hours, odds, what fits, and how much more would.

Nothing is measured. Seconds come from earlier runs of the same setting in the record, or are predicted.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, fmean

from harness.arc.task import Task
from harness.catalog import precisions, trainable
from harness.catalog.accelerators import Accelerator
from harness.catalog.precisions import NATIVE
from harness.errors import UserError
from harness.predict.calibration import Calibration
from harness.predict.cells import device_at_hand
from harness.predict.prediction import PredictRequest, compute_of
from harness.predict.query import card_named
from harness.records import solving, store
from harness.records.arm import GREEDY, TASK, VOTE, TuneSpec
from harness.records.cell import ModelSpec, Recipe
from harness.records.store import RESULTS, slug
from harness.solve import estimate
from harness.solve.estimate import EstimateObserver
from harness.solve.pace import Pace
from harness.solve.rank import most_rank
from harness.solve.simulation import Foreseen, foresee, uncertainty
from harness.solve.tokens import TaskTokens
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

_PIECES = 1.2  # times the work: time that is left is in pieces, and a task that takes long is cut before it is gone
_SURE = 0.95  # probability that nothing is cut short, of the largest steps and views
_MOST_STEPS, _MOST_VIEWS = 1 << 14, 1 << 10


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What is to be planned, checked. `gpu` names cards as `predict` does; without one it is the device at hand."""

    model: ModelSpec
    weights: str
    recipe: Recipe
    dataset: str
    tasks: Sequence[Task]
    arm: str
    steps: int
    views: int
    context: int
    encoding: str
    too_long: str
    scope: str
    decode: str = GREEDY
    select: str = VOTE
    precision: str | None
    budget_s: float
    device: str = "auto"
    gpu: str | None = None
    workers: int | None = None
    results: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is foreseen. Hours of `train_h` and `answer_h` are of all workers together; `unasked` are ids of tasks with
    a test input that does not fit the context, `untrained` of those without a training example that does. With
    `most_steps` at the planned views, or `most_views` at the planned steps, all is done in time at 95 %; 0 where not
    even one is. `most_rank` is the largest rank whose training step fits the memory, None where that is not known."""

    device: str
    precision: str
    workers: int
    tasks: int
    foreseen: Foreseen
    load_s: float
    train_h: float
    answer_h: float
    unasked: tuple[str, ...]
    untrained: tuple[str, ...]
    most_steps: int
    most_views: int
    most_rank: int | None = None
    source: str


def plan(config: PlanConfig, observer: EstimateObserver) -> RunPlan:
    """The plan. Raises UserError for what the user must correct first."""
    with LocalExecutor() as executor:
        rows: list[solving.SolvedTask] = []
        if config.gpu:
            accelerator, calibration = card_named(config.gpu)
            name, device, workers = accelerator.name, accelerator.kind, config.workers or accelerator.count
        else:
            observer.note("looking at the device ...")
            with reserve(executor, config.device) as report:
                folder = config.results or RESULTS / slug(report.device.name)
                accelerator, calibration = device_at_hand(report, folder.parent)
            name, device = report.device.name, report.device.id
            workers = config.workers or 1 + len(report.device.others) * (config.device == "auto")
            rows = _rows(folder, observer)
        spec, request = _spec(config, accelerator, calibration, device, name)
        tokens = estimate.count_tokens(estimate.count_job(spec, config.tasks, config.arm), executor, observer)
        pace = estimate.predicted_pace(request, executor.command, observer)
        if device == "cpu" and not (config.workers or config.gpu):
            counted = list(tokens.values())
            workers = estimate.fastest_workers(pace, rows, spec, config.arm, counted, os.cpu_count() or 1)
        # One adapter for all is trained by one process, with all cores.
        sharing = workers if config.scope == TASK else 1
        pace = estimate.known_pace(pace, rows, spec, config.arm, sharing)
        rank = most_rank(request, executor.command, observer)
    return replace(_planned(config, spec, workers, tokens, pace), most_rank=rank)


def _rows(folder: Path, observer: EstimateObserver) -> list[solving.SolvedTask]:
    path = folder / solving.ROWS.name
    if not path.exists():
        return []
    rows, left_out = store.read(path, solving.ROWS)
    for text in left_out.sentences(path.name):
        observer.note(text)
    return rows


def _spec(
    config: PlanConfig, accelerator: Accelerator, calibration: Calibration, device: str, name: str
) -> tuple[TuneSpec, PredictRequest]:
    """What a run would be, by the same words as harness.tune.run's, and what is predicted for one of its cards."""
    requested = precisions.requested(config.precision or NATIVE.name)
    precision = precisions.resolve(requested, accelerator.native_half)
    compute = compute_of(precision, accelerator)
    if reason := trainable.overflow(config.model, compute):
        raise UserError(f"{config.model.name} {precision.name}: {reason}")
    spec = TuneSpec(
        model=config.model,
        weights=config.weights,
        precision=precision.name,
        compute_dtype=compute,
        device=device,
        device_name=name,
        recipe=config.recipe,
        dataset=config.dataset,
        tasks=tuple(task.id for task in config.tasks),
        steps=config.steps,
        context=config.context,
        encoding=config.encoding,
        views=config.views,
        seed=0,
        scope=TASK,
        too_long=config.too_long,
        decode=config.decode,
        select=config.select,
    )
    return spec, estimate.request_of(spec, accelerator, calibration)


def _planned(config: PlanConfig, spec: TuneSpec, workers: int, tokens: dict[str, TaskTokens], pace: Pace) -> RunPlan:
    asked = [task for task in tokens.values() if task.questions]
    if not asked:
        raise UserError(f"none of {len(tokens)} tasks fits {config.context} tokens; ask for a longer --context")
    outlook = _PerTask(asked, pace, workers, config) if config.scope == TASK else _Shared(asked, pace, workers, config)
    steps, views = config.steps, config.views
    train_s, answer_s = outlook.work(steps, views)
    return RunPlan(
        device=spec.device_name,
        precision=spec.precision,
        workers=workers,
        tasks=len(tokens),
        foreseen=outlook.foreseen(steps, views),
        load_s=pace.load_s,
        train_h=train_s / 3600,
        answer_h=answer_s / 3600,
        unasked=tuple(task.id for task in tokens.values() if task.unasked),
        untrained=tuple(task.id for task in asked if not task.examples),
        most_steps=_most(lambda n: outlook.surely_fits(n, views), _MOST_STEPS),
        most_views=_most(lambda n: outlook.surely_fits(steps, n), _MOST_VIEWS),
        source=pace.source,
    )


@dataclass(frozen=True)
class _PerTask:
    """One adapter per task, tasks in a queue over the workers."""

    tasks: Sequence[TaskTokens]
    pace: Pace
    workers: int
    config: PlanConfig

    def work(self, steps: int, views: int) -> tuple[float, float]:
        """Seconds of training and of answering, of all tasks together."""
        parts = [self.pace.parts(task, steps, views) for task in self.tasks]
        return sum(p.train_s for p in parts), sum(p.answer_s for p in parts)

    def foreseen(self, steps: int, views: int) -> Foreseen:
        expected = {task.id: self.pace.parts(task, steps, views).seconds for task in self.tasks}
        least = {task.id: self.pace.parts(task, 0, 1).answer_s for task in self.tasks}
        return foresee(expected, least, self.config.budget_s, [1.0] * self.workers, uncertainty(self.pace))

    def surely_fits(self, steps: int, views: int) -> bool:
        """Whether all is done in time at 95 %, without a simulation: the work divided, and the last task's tail."""
        longest = max(self.pace.parts(task, steps, views).seconds for task in self.tasks)
        seconds = _PIECES * sum(self.work(steps, views)) / self.workers + longest * (self.workers > 1)
        unsure = uncertainty(self.pace)
        spread = math.hypot(unsure.common, unsure.worker, unsure.task / math.sqrt(len(self.tasks)))
        late = math.exp(NormalDist().inv_cdf(_SURE) * spread)
        return unsure.startup_s[1] + seconds * late <= self.config.budget_s


@dataclass(frozen=True)
class _Shared:
    """One adapter for all tasks, trained on one card; the answers are divided among all."""

    tasks: Sequence[TaskTokens]
    pace: Pace
    workers: int
    config: PlanConfig

    def work(self, steps: int, views: int) -> tuple[float, float]:
        """Seconds of training, and of answering on all cards together."""
        lengths = [n for task in self.tasks for n in task.examples]
        per_sequence = fmean(map(self.pace.sequence_s, lengths)) if lengths else 0.0
        step_s = self.config.recipe.sequences_per_step * per_sequence + self.pace.update_s
        answer_s = sum(self.pace.parts(task, 0, views).answer_s for task in self.tasks)
        return steps * step_s * self.pace.train_factor, answer_s

    def foreseen(self, steps: int, views: int) -> Foreseen:
        seconds, factor = self._seconds(steps, views), math.exp(1.96 * self.pace.common_sigma)
        load_h, odds = self.pace.load_s / 3600, self._odds(seconds)
        hours = seconds / 3600
        return Foreseen(load_h + hours / factor, load_h + hours, load_h + hours * factor, odds, odds, 0.0)

    def surely_fits(self, steps: int, views: int) -> bool:
        return self._odds(self._seconds(steps, views)) >= _SURE

    def _seconds(self, steps: int, views: int) -> float:
        train_s, answer_s = self.work(steps, views)
        return train_s + answer_s / self.workers

    def _odds(self, seconds: float) -> float:
        """The probability that so many expected seconds end in time."""
        left = self.config.budget_s - self.pace.load_s
        return NormalDist(0.0, max(1e-9, self.pace.common_sigma)).cdf(math.log(left / seconds)) if left > 0 else 0.0


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, by halving; 0 where 1 does not."""
    low, high = 0, most + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
