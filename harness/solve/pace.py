"""What a task takes: seconds of training and of answering from its tokens, as predicted, then as measured.

The form comes from the prediction (harness.predict): seconds of a sequence against its tokens, of an update, of reading
a question, of a token of the answer. Other ways of answering than greedily and by vote take `DECODE_COST` times as
long, and `SCORE_COST` times that more for scores, by assumption. Two factors, one for training and one for answering,
come from what was measured on the same device with the same settings: an earlier run's tasks, or those of this run so
far.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, pstdev

from harness.analysis.drift import CPU, DRIFT, UNSTEADY
from harness.predict.answering import DecodeSpeed, cache_size, rows_at_once
from harness.predict.prediction import PredictRequest, predict_cell
from harness.predict.roofline import Trace
from harness.predict.step_seconds import as_run, seconds_by_length, update_seconds
from harness.records.arm import DFS, GREEDY, SAMPLE, SCORE
from harness.records.cell import Recipe
from harness.records.solving import SolvedTask
from harness.solve.tokens import TaskTokens

_TASK_SIGMA = 0.25  # of a task's logarithm of seconds about its expectation, before any was measured
FEW = 5  # rows: with fewer their own spread says little
# Seconds of answering, times those of greedy answers by vote: of 31 tasks with arc-tiny on a CPU (bench/LOG.md). How
# many branches depth first has depends on how sure the model is, so that elsewhere it is a guess.
DECODE_COST = {GREEDY: 1.0, SAMPLE: 1.3, DFS: 1.72}
SCORE_COST = 0.56
_ASSUMED_SIGMA = 0.3
# Work of several workers on one CPU over that of one with all threads: of two on two cores it was 1.45 to 1.65.
CPU_GAIN = 1.5
_MOST_SCORE_SHARE = 0.5


@dataclass(frozen=True)
class Parts:
    """Seconds of one task."""

    train_s: float
    answer_s: float

    @property
    def seconds(self) -> float:
        return self.train_s + self.answer_s


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The pace of one model on one device. `sequence_s` maps tokens to seconds of a forward and backward, `rows` are
    the questions decoded at once. `common_sigma` and `task_sigma` are standard deviations of logarithms: of all tasks
    together, and of one about its expectation. Answers take `cost` times greedy ones by vote, `score_share` of that
    for their scores. `tasks` were measured; `source` says what it all comes from."""

    recipe: Recipe
    kind: str  # cpu or cuda
    sequence_s: Callable[[float], float]
    update_s: float
    decoding: DecodeSpeed
    rows: int
    load_s: float
    common_sigma: float
    task_sigma: float = _TASK_SIGMA
    train_factor: float = 1.0
    answer_factor: float = 1.0
    cost: float = 1.0
    score_share: float = 0.0
    tasks: int = 0
    source: str = ""

    def parts(self, tokens: TaskTokens, steps: int, views: int) -> Parts:
        """Expected seconds of a task with `steps` optimiser steps and `views` of each test input."""
        nominal = self.nominal(tokens, steps, views)
        return Parts(nominal.train_s * self.train_factor, nominal.answer_s * self.answer_factor)

    def nominal(self, tokens: TaskTokens, steps: int, views: int) -> Parts:
        """The same before any measured factor."""
        train_s = 0.0
        if tokens.examples:
            per_step = self.recipe.sequences_per_step * fmean(map(self.sequence_s, tokens.examples))
            train_s = steps * (per_step + self.update_s)
        questions = views * len(tokens.questions)
        together = max(1, min(questions, self.rows))
        answer_s = sum(views * self.decoding.seconds(n, tokens.answer, together) for n in tokens.questions)
        return Parts(train_s, answer_s * self.cost)

    def answering(self, decode: str, select: str) -> "Pace":
        """The pace with answers decoded and selected in these ways, by assumption."""
        cost = DECODE_COST[decode] + (SCORE_COST if select == SCORE else 0.0)
        if cost == 1.0:  # what others measured may have had scores
            return replace(self, score_share=0.0) if self.score_share else self
        ways = " and ".join([decode] * (decode != GREEDY) + [SCORE] * (select == SCORE))
        return replace(
            self,
            cost=cost,
            score_share=SCORE_COST / cost if select == SCORE else 0.0,
            common_sigma=math.hypot(self.common_sigma, _ASSUMED_SIGMA),
            source=f"{self.source}; answers by {ways} are assumed to take {cost:.1f} times greedy ones by vote",
        )

    def shared_by(self, workers: int) -> "Pace":
        """The pace of each of `workers` that share a CPU's cores, by assumption; on cards each has its own."""
        if self.kind != CPU or workers == 1:
            return self
        stretch = workers / CPU_GAIN
        return replace(
            self,
            train_factor=self.train_factor * stretch,
            answer_factor=self.answer_factor * stretch,
            common_sigma=math.hypot(self.common_sigma, _ASSUMED_SIGMA),
            source=f"{self.source}; {workers} workers on one CPU are assumed to do {CPU_GAIN} times the work of one",
        )

    def measured_by(self, rows: Sequence[SolvedTask], source: str) -> "Pace":
        """The pace that `rows` of this setting show: those of tasks that were not cut short."""
        whole = [row for row in rows if row.ok and not row.cut and row.nominal_train_s + row.nominal_answer_s]
        if not whole:
            return self
        train = _factor(sum(row.train_s for row in whole), sum(row.nominal_train_s for row in whole))
        answer = _factor(sum(row.answer_s for row in whole), sum(row.nominal_answer_s for row in whole))
        # How far single tasks lie from that, and how well their mean is known.
        expected = [train * row.nominal_train_s + answer * row.nominal_answer_s for row in whole]
        residuals = [math.log(row.seconds / s) for row, s in zip(whole, expected, strict=True) if row.seconds and s]
        known = len(residuals) >= FEW
        spread = pstdev(residuals) if known else max(_TASK_SIGMA, pstdev(residuals or [0.0]))
        scored = sum(row.score_s for row in whole) / max(1e-9, sum(row.answer_s for row in whole))
        loads = [row.load_s for row in whole if row.load_s]
        return replace(
            self,
            load_s=median(loads) if loads else self.load_s,
            train_factor=train,
            answer_factor=answer,
            score_share=min(_MOST_SCORE_SHARE, max(self.score_share, scored)),
            task_sigma=spread,
            common_sigma=math.hypot(DRIFT[CPU if self.kind == CPU else UNSTEADY], spread / math.sqrt(len(whole))),
            tasks=len(whole),
            source=source,
        )


def predicted(request: PredictRequest, traces: Mapping[int, Trace]) -> Pace:
    """The pace by prediction alone, with the interval of that prediction."""
    prediction = predict_cell(request, traces)
    accelerator, calibration = request.accelerator, request.calibration
    by_length = {n: as_run(t, request.recipe, accelerator, request.compute_dtype) for n, t in traces.items()}
    trace = by_length[request.context]
    cache = cache_size(request.spec.architecture, 4 if request.compute_dtype == "fp32" else 2)
    return Pace(
        recipe=request.recipe,
        kind=accelerator.kind,
        sequence_s=seconds_by_length(by_length, accelerator, calibration),
        update_s=update_seconds(trace, request.recipe, accelerator, calibration),
        decoding=DecodeSpeed.of(trace, accelerator, calibration, cache),
        rows=rows_at_once(trace, accelerator, cache, request.context),
        load_s=prediction.load_s,
        common_sigma=prediction.log_sigma,
        source=f"predicted: {prediction.source}",
    )


def _factor(measured_s: float, planned_s: float) -> float:
    return measured_s / planned_s if measured_s and planned_s else 1.0
