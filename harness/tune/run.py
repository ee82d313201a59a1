"""`harness ttft`, and the accuracy part of `bench`: finds the device, runs the arms, and shows how far they are."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.analysis.projection import step_seconds
from harness.catalog.models import Catalog
from harness.catalog.precisions import DTYPES, compute_dtype, find, native_dtype
from harness.catalog.weights import RANDOM
from harness.errors import UserError
from harness.measure.config import SweepConfig
from harness.measure.sweep import SweepResult
from harness.predict.prediction import Prediction
from harness.records.arm import ROWS, ArmResult, TuneSpec
from harness.records.cell import Cell
from harness.records.measurement import MatmulSpeed
from harness.records.store import RESULTS, Store, slug
from harness.report.format import duration
from harness.tune import experiment
from harness.tune.config import NO_WEIGHTS, Exam, How
from harness.tune.config import of as exam_of

_SAY_EVERY_S = 10.0
LONGEST_S = 1800.0  # a bench does not go on to a fine-tune that would take longer


def measure(exam: Exam, device: str, results: Path | None, fresh: bool, out: Console) -> tuple[list[ArmResult], Path]:
    """The results of the exam's arms, and the folder of the record. Raises UserError where memory runs out."""

    def note(text: str) -> None:
        out.print(Text(text), soft_wrap=True)

    note("looking at the device ...")
    import torch

    from harness.hardware.device import choose
    from harness.hardware.probe import rates
    from harness.train import distributed

    found, how = choose(device, gpus=exam.recipe.data_parallel), exam.how
    own = distributed.init(torch.device(found.id))
    probed = rates(torch.device(found.id), DTYPES)
    precision = find(how.precision or native_dtype(probed))
    store = Store(results or RESULTS / slug(found.name), kind=ROWS)
    if bad := store.repair():
        note(f"{bad} corrupt lines of {store.path} were put aside; the rest is used")
    trial = TuneSpec(
        model=exam.model,
        weights=exam.weights,
        precision=precision.name,
        compute_dtype=compute_dtype(precision, probed),
        device=str(own),
        device_name=found.name,
        recipe=exam.recipe,
        dataset=exam.source,
        tasks=tuple(puzzle.id for puzzle in exam.puzzles),
        steps=exam.steps,
        context=exam.context,
        encoding=how.encoding,
        views=exam.views,
        seed=how.seed,
        curve=how.curve,
        scope=how.scope,
        too_long=how.too_long,
    )
    try:
        far = _Progress(note)
        told = (exam.puzzles, exam.solutions, exam.arms, store, note, far.step, far.answers)
        foresee = _foresee(asdict(found), probed, store.folder) if how.fit else None
        return experiment.run(trial, *told, fresh, foresee), store.folder
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory at {exam.context} tokens; try a shorter --context or --precision int4"
        ) from None


def _foresee(
    device: dict[str, Any], rates: dict[str, MatmulSpeed], folder: Path
) -> Callable[[Cell], Prediction | None]:
    """What predicts a cell on `device`; traces are made in this process, where torch is loaded already."""
    from harness.hardware.environment import versions
    from harness.predict.cells import CellPredictor
    from harness.predict.tracer import answerer

    trace = answerer()
    return CellPredictor(device, rates, folder, versions(), lambda **question: trace(question["subject"])).of


def of_sweep(asked: SweepConfig, known: Catalog, swept: SweepResult, out: Console) -> list[ArmResult]:
    """The accuracies of the models just profiled: a short fine-tune of each that has weights, in the native precision.

    A model without weights, or for which it would take too long here, is said to be unmeasured.
    """
    found = []
    for spec, weights in asked.models:
        rows = [row for row in swept.rows if row.ok and row.cell.model == spec and row.rate and row.rate.native]
        try:
            if weights == RANDOM:
                raise UserError(f"{spec.name}: {NO_WEIGHTS}")
            if not rows:
                raise UserError(f"{spec.name}: accuracy not measured, for no cell was in a native precision")
            native = [row for row in rows if row.cell.precision == row.cell.compute_dtype] or rows
            how = How(arms="baseline, + color swap", precision=native[0].cell.precision, curve=True, seed=asked.seed)
            how = replace(how, trim_vocab=asked.recipe.trim_vocab, kernels=asked.recipe.kernels, fit=asked.fit)
            exam = exam_of(spec, weights, how, known, alone=len(asked.models) == 1)
            expected = exam.steps * step_seconds(native[0])
            if expected > LONGEST_S:
                raise UserError(
                    f"{spec.name}: accuracy not measured: {exam.steps} steps would take about {duration(expected)} "
                    f"here; harness ttft {spec.name} measures it all the same"
                )
            found += measure(exam, swept.device["id"], swept.folder, asked.fresh, out)[0]
        except UserError as problem:
            out.print(Text(str(problem)), soft_wrap=True)
    return found


class _Progress:
    """Says now and then how far a long loop is, with the time left."""

    def __init__(self, note: Callable[[str], None]):
        self.note, self.of, self.first, self.at, self.said = note, "", 0.0, 0, 0.0

    def step(self, arm: str, step: int, total: int, loss: float) -> None:
        self._far(f"{arm}: step {step} of {total}, loss {loss:.3f}", f"{arm} training", step, total)

    def answers(self, done: int, total: int) -> None:
        self._far(f"{done} of {total} questions answered", "answering", done, total)

    def _far(self, text: str, of: str, done: int, total: int) -> None:
        now = time.monotonic()
        if of != self.of or done <= self.at:
            self.of, self.first, self.at, self.said = of, now, done, now
        elif now - self.said >= _SAY_EVERY_S and done < total:
            self.said = now
            self.note(f"{text}, about {duration((now - self.first) / (done - self.at) * (total - done))} left")
