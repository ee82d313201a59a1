"""Joins verbs: a bench is a sweep, then a short fine-tune of each model that has weights."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, Protocol

from harness.analysis.projection import step_seconds
from harness.analysis.run_description import OF_STEPS, differences
from harness.catalog import precisions, trainable
from harness.catalog.models import Catalog
from harness.errors import UserError
from harness.hardware.cpu_load import CpuMeter
from harness.hardware.info import DeviceReport
from harness.measure import plan, sweep
from harness.measure.config import SweepConfig, SweepObserver, SweepResult
from harness.records.arm import TASK, ArmResult
from harness.records.cell import ModelSpec
from harness.records.measurement import Measurement
from harness.records.store import slug
from harness.tune import run as tuning
from harness.tune.config import TuneConfig, must_have_weights, settings_for
from harness.tune.run import TuneObserver
from harness.workers.cards import one_each
from harness.workers.cluster import Fleet, Gone
from harness.workers.local import LocalExecutor
from harness.workers.look import find, reserve
from harness.workers.ray import Executor, RayExecutor
from harness.workers.spread import spread

LONGEST_S = 1800.0  # a bench does not go on to a fine-tune that would take longer
ARMS = "baseline, + color swap"


class Observer(SweepObserver, TuneObserver, Protocol):
    """Receives the progress of the sweep and of the fine-tunes."""


@dataclass(frozen=True)
class BenchResult:
    swept: SweepResult
    results: list[ArmResult]


def bench(
    config: SweepConfig,
    catalog: Catalog,
    observer: Observer,
    on_result: Callable[[BenchResult], None] = lambda result: None,
    executor: LocalExecutor | None = None,
    accuracy: bool = True,
) -> BenchResult:
    """Sweeps, and with `accuracy` fine-tunes, on a device that is locked until the end.

    Where the user names none, cells of one card are measured on all cards of its kind. `on_result` is called after the
    sweep, and again after the fine-tunes, so that nothing is lost if one of them is killed. A share (`config.shard`)
    has no fine-tune.

    A model without weights, or whose fine-tune would take too long here, gets a note instead. Raises UserError for
    invalid input.
    """
    meter = CpuMeter()
    with executor or LocalExecutor() as executor:
        observer.note("looking at the device ...")
        with reserve(executor, config.device, config.recipe.data_parallel) as report:
            several = config.device == "auto" and config.recipe.data_parallel == 1
            cards = one_each(executor, report.device, observer.note, _pieces(config, report))
            with cards if several else nullcontext([executor]) as executors:
                work = _Work(config, catalog, observer, on_result, accuracy)
                result = work.on(report, executors, executor, meter)
    if result.results:
        on_result(result)
    return result


def _pieces(config: SweepConfig, report: DeviceReport) -> int:
    """Parts of the sweep that can be on a card each."""
    cells = plan.cells(config, config.contexts.get(report.device.kind, ()), report)
    own = config.shard.of(cells) if config.shard else cells
    return len(plan.groups(list(enumerate(own))))


def bench_fleet(
    config: SweepConfig,
    catalog: Catalog,
    observer: Observer,
    fleet: Fleet,
    on_result: Callable[[BenchResult], None] = lambda result: None,
    accuracy: bool = True,
) -> list[BenchResult]:
    """As `bench`, on a cluster: one result per kind of device, each with a record of its own: in a folder per kind
    under `config.results`, where that is given.

    Where the cluster loses its last machine of a kind, the others go on to their end before Gone is raised.
    """
    together = _Together(observer)
    gone: list[Gone] = []
    executors = [RayExecutor(fleet.ray, kind, fleet.command) for kind in fleet.kinds]

    def one(executor: RayExecutor, _: RayExecutor) -> BenchResult | None:
        try:
            return all_on(executor)
        except Gone as problem:
            gone.append(problem)
            return None

    def all_on(executor: RayExecutor) -> BenchResult:
        with executor, reserve(executor, config.device) as report:
            # Also for a single kind: the same command finds its record when the cluster has more kinds, or fewer.
            named = config.results and config.results / slug(report.device.name)
            own = replace(config, results=named)
            work = _Work(own, catalog, together, together.holding(on_result), accuracy)
            result = work.on(report, [executor] * executor.kind.count, executor, CpuMeter())
        if result.results:
            together.holding(on_result)(result)
        return result

    observer.note(f"looking at {fleet.count} devices of the cluster ...")
    results = [result for result in spread(executors, executors, one) if result]
    if gone:
        raise gone[0]
    return results


class _Together:
    """An observer for several threads: one speaks at a time."""

    def __init__(self, observer: Observer):
        self._observer, self._lock = observer, RLock()

    def holding(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def held(*words: Any, **named: Any) -> Any:
            with self._lock:
                return call(*words, **named)

        return held

    def __getattr__(self, name: str) -> Any:
        return self.holding(getattr(self._observer, name))


@dataclass(frozen=True)
class _Work:
    """What `bench` does on one kind of device."""

    config: SweepConfig
    catalog: Catalog
    observer: Any
    on_result: Callable[[BenchResult], None]
    accuracy: bool

    def on(self, report: DeviceReport, executors: Sequence[Executor], first: Executor, meter: CpuMeter) -> BenchResult:
        """Sweeps on all `executors`; fine-tunes on the `first` of this machine, or on all of a cluster."""
        config, observer = self.config, self.observer
        # The fine-tunes are chosen by the swept rows: which precision is native, and what a step takes.
        swept = sweep.run_on(report, config, observer, executors, meter)
        measures_accuracy = self.accuracy and not config.shard
        if self.accuracy and config.shard:
            observer.note("a share measures speed alone; ttft --shard measures accuracy")
        tunes = fine_tunes(config, self.catalog, swept, observer.note) if measures_accuracy else []
        # An accuracy joins the cell that is its own run alone, so there must be one.
        for tune in tunes:
            if extra := cell_of(tune, config, swept):
                observer.note(f"{tune.model.name}: a cell as it is fine-tuned, at {tune.context} tokens")
                more = sweep.run_on(report, extra, observer, executors, meter)
                swept = replace(swept, rows=in_order(swept.rows, more.rows))
        for executor in {id(each): each for each in (first, *executors)}.values():
            executor.close()  # the process that traced is not needed any more
        result = BenchResult(swept, [])
        self.on_result(result)
        # One that cannot be done is a note; the others go on.
        for tune in tunes:
            try:
                # The sweep may have had several cards, of which the fine-tune takes the first.
                device = find(first, tune.device) if report.device.partners else report.device
                beside = () if first.on_this_machine else executors
                tuned = tuning.run_on(replace(report, device=device), tune, observer, first, beside)
                result = replace(result, results=[*result.results, *tuned.rows])
            except Gone:
                raise
            except UserError as problem:
                observer.note(str(problem))
        return result


def cell_of(tune: TuneConfig, config: SweepConfig, swept: SweepResult) -> SweepConfig | None:
    """The sweep of the one cell that `tune` is a run of; None where `swept` has it."""
    spec = tuning.spec_of(tune, swept.report)
    own = [
        row.cell for row in swept.rows if (row.cell.model.name, row.cell.precision) == (spec.model.name, spec.precision)
    ]
    if any(not differences(cell, spec) for cell in own):
        return None
    recipe = replace(config.recipe, **{name: getattr(tune.recipe, name) for name in OF_STEPS})
    return replace(
        config,
        models=[(tune.model, tune.weights)],
        precisions=[precisions.find(spec.precision)],
        contexts={swept.report.device.kind: [tune.context]},
        recipe=recipe,
        shard=None,
    )


def in_order(rows: list[Measurement], more: list[Measurement]) -> list[Measurement]:
    """`rows` with `more` of a model and precision among them, a precision's contexts from short to long."""
    rows = list(rows)
    for row in more:
        alike = [
            i
            for i, other in enumerate(rows)
            if (other.cell.model.name, other.cell.precision) == (row.cell.model.name, row.cell.precision)
        ]
        shorter = [i for i in alike if rows[i].cell.context <= row.cell.context]
        rows.insert(shorter[-1] + 1 if shorter else alike[0] if alike else len(rows), row)
    return rows


def fine_tunes(
    config: SweepConfig, catalog: Catalog, swept: SweepResult, note: Callable[[str], None]
) -> list[TuneConfig]:
    """A short fine-tune, in the native precision, per swept model with weights; the others get a note."""
    configs = []
    for spec, weights in config.models:
        try:
            configs.append(_fine_tune(spec, weights, config, catalog, swept))
        except UserError as problem:
            note(str(problem))
    return configs


def _fine_tune(spec: ModelSpec, weights: str, config: SweepConfig, catalog: Catalog, swept: SweepResult) -> TuneConfig:
    """Raises UserError with the reason where the model's accuracy is not measured."""
    # Emulated cells say nothing of how one would train here.
    ok = [row for row in swept.rows if row.ok and row.cell.model.name == spec.name and row.rate and row.rate.native]
    rows = [row for row in ok if not trainable.overflow(spec, row.cell.compute_dtype)]
    must_have_weights(spec, weights)
    if not rows:
        raise UserError(f"{spec.name}: accuracy not measured, for no cell was in a native precision")
    # Unquantised rows first, for the quantised ones compute in the same dtype and are less exact.
    native = [row for row in rows if row.cell.precision == row.cell.compute_dtype] or rows
    # Several models are compared on the same tasks, each with its own learning rate.
    settings = settings_for(catalog, spec, alone=len(config.models) == 1)
    own = {name: value for name, value in settings.of_recipe.items() if value is not None}
    # Targets that the user names for the sweep are those of the fine-tune too.
    if config.targets_given:
        own["lora_targets"] = config.recipe.lora_targets
    recipe = replace(
        catalog.recipe, **own, **{name: getattr(config.recipe, name) for name in ("trim_vocab", "kernels")}
    )
    # A bench is to end in minutes; the user may still ask for a long fine-tune alone.
    steps = settings.steps * (settings.tasks if settings.scope == TASK else 1)
    share = recipe.sequences_per_step / native[0].cell.recipe.sequences_per_step
    expected_s = steps * share * step_seconds(native[0])
    if expected_s > LONGEST_S:
        raise UserError(
            f"{spec.name}: accuracy not measured: {steps} steps would take about {expected_s / 60:.0f} min "
            f"here; harness ttft {spec.name} measures it all the same"
        )
    return TuneConfig.of(
        spec,
        weights,
        settings,
        arms=ARMS,
        recipe=recipe,
        precision=native[0].cell.precision,
        curve=True,
        autotune=config.autotune,
        seed=config.seed,
        device=swept.report.device.id,
        results=swept.folder,
        fresh=config.fresh,
    )
