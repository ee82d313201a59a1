"""The job that fine-tunes one model through several arms, at equal steps on the same tasks, in a process of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.arc.arms import ARMS
from harness.arc.dataset import Answers
from harness.arc.encode import rows
from harness.arc.score import score
from harness.arc.task import Solutions
from harness.errors import Unsupported, UserError, first_line
from harness.hardware.environment import commit, versions
from harness.hardware.info import DeviceReport
from harness.predict import tracer
from harness.predict.cells import CellPredictor
from harness.predict.prediction import Prediction
from harness.predict.trace_pool import TRACE
from harness.records.arm import ArmResult, Coverage, CurvePoint, mean_loss, to_json
from harness.records.cell import Cell
from harness.records.stored import from_stored
from harness.train import distributed
from harness.train.device_errors import lost, ran_out, without_kernels
from harness.tune.checkpoint import Checkpointer, path_of
from harness.tune.config import ArmsJob
from harness.tune.outcome import ArmOutcome
from harness.tune.runner import ArmRunner


def run_arms(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Runs an `ArmsJob`, given as stored, and emits each arm's row. Returns {"status": ..., "reason": ...}:
    ok, oom, or crashed where the card is lost or has no kernels.

    The model is loaded once. Every arm (with one adapter per task, every task) starts from the same adapter. A stopped
    arm resumes from its last checkpoint, which the process that stores the row removes. Raises UserError where the
    model has no tokenizer, and where no question or no training example fits the context.
    """
    try:
        _emit_rows(from_stored(payload, ArmsJob), emit)
    except (UserError, Unsupported):
        raise
    except Exception as problem:
        # Told and not raised: another process's failure must reach the parent as what it is.
        if ran_out(problem):
            return {"status": "oom", "reason": first_line(problem)}
        if sentence := lost(problem) or without_kernels(problem):
            return {"status": "crashed", "reason": sentence}
        raise
    return {"status": "ok", "reason": ""}


def _emit_rows(job: ArmsJob, emit: Callable[..., None]) -> None:
    device = distributed.init(torch.device(job.spec.device))
    first = distributed.rank() == 0

    # With several processes all compute, and the first one reports.
    def note(text: str) -> None:
        if first:
            emit("note", text=text)

    with TemporaryDirectory() as spare:
        # Without a folder that outlives this process a checkpoint serves nobody.
        job = replace(job, spec=replace(job.spec, device=str(device)), folder=job.folder or spare)
        for row in _rows(job, note, emit):
            if first:
                emit("row", row=to_json(row))


def _rows(job: ArmsJob, note: Callable[[str], None], emit: Callable[..., None]) -> Iterator[ArmResult]:
    """The rows of the job's arms, one after the other; a row comes when its arm is finished."""
    spec, arms = job.spec, [ARMS[name] for name in job.arms]
    truths = {name: job.solutions[name] for name in spec.tasks}
    note(f"loading {spec.model.name}")
    runner = ArmRunner(spec, job.tasks, truths, lambda done, total: emit("answers", done=done, total=total), note)
    for text in runner.notes:
        note(text)
    note(f"kernels: {runner.kernels}; adapted: {runner.adapted}")
    # Autotuned once, on the first arm that trains: the lengths of prompts hardly differ between arms.
    if job.report and (trained := [arm for arm in arms if arm.examples]):
        runner.autotune(trained[0], _predictor(job.report, Path(job.folder), note), note)
    for arm in arms:
        key = spec.key(arm.name, versions(), job.environment)
        checkpointer = Checkpointer(path_of(Path(job.folder), key), note, job.fresh, writes=not distributed.rank())
        started = datetime.now(UTC).isoformat(timespec="seconds")

        def on_step(name: str, step: int, total: int, loss: float) -> None:
            emit("step", arm=name, step=step, total=total, loss=loss)

        outcome = runner.run(arm, checkpointer, on_step)
        made: dict[str, Any] = {"commit": commit(), "started": started, "environment": job.environment}
        blank = ArmResult.of(spec, arm.name, versions(), **made)
        # Each process decodes questions of its own, and may lack memory for them alone.
        decoding = [text for notes in distributed.all_gather(runner.decoding.notes) for text in notes]
        notes = (*runner.row_notes, *runner.packing.notes, *dict.fromkeys(decoding))
        if outcome.overflows:
            notes += (f"{outcome.overflows} steps were run again, for their gradients were too large for fp16's scale",)
        yield replace(_filled(blank, outcome, truths, runner.coverage), adapted=runner.adapted, notes=notes)


def _filled(blank: ArmResult, outcome: ArmOutcome, truths: Solutions, coverage: Coverage) -> ArmResult:
    chosen = {name: [[grid for grid, _ in choices] for choices in task] for name, task in outcome.choices.items()}
    attempts = {name: tuple(tuple(map(rows, grids)) for grids in task) for name, task in chosen.items()}
    confidence = {
        name: tuple(tuple(share for _, share in choices) for choices in task) for name, task in outcome.choices.items()
    }
    return replace(
        blank,
        coverage=coverage,
        scores=tuple(score(outcome.answers, truths, chosen)),
        attempts=attempts,
        confidence=confidence,
        step_losses=tuple(outcome.step_losses),
        answer_losses=tuple(outcome.losses),
        # A checkpoint of an earlier version has none for the tasks that it had finished.
        answer_counts=tuple(outcome.counts.values()) if list(outcome.counts) == list(blank.spec.tasks) else (),
        train_s=outcome.train_s,
        decode_s=outcome.decode_s,
        score_s=outcome.score_s,
        cores_taken=outcome.cores_taken(torch.get_num_threads()),
        used=outcome.used,
        too_long=outcome.too_long,
        untrained=outcome.untrained,
        questions=outcome.questions,
        skipped=outcome.skipped,
        curve_points=tuple(_curve_point(*point, truths) for point in outcome.curve),
    )


def _curve_point(steps: int, answers: Answers, losses: Sequence[tuple[float, int]], truths: Solutions) -> CurvePoint:
    return CurvePoint(steps, mean_loss(losses), tuple(task.attempts for task in score(answers, truths)))


def _job_here(job: str, payload: Any) -> dict[str, Any]:
    return (tracer.trace_job if job == TRACE else tracer.imported_job)(payload, print)


def _predictor(report: DeviceReport, folder: Path, note: Callable[[str], None]) -> Callable[[Cell], Prediction | None]:
    """The predictor of cells on this device; it traces models here, as torch is loaded in this process anyway."""
    predictor = CellPredictor(report, folder, versions(), _job_here)
    reasons: set[str] = set()

    def predict(cell: Cell) -> Prediction | None:
        predicted = predictor.predict(cell)
        if not isinstance(predicted, str):
            return predicted
        # Once, however many variants there are.
        if predicted not in reasons:
            reasons.add(predicted)
            note(f"--autotune has nothing to predict with: {predicted}")
        return None

    return predict
