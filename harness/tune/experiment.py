"""One model through the arms, at equal steps on the same tasks: what `harness ttft` runs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from harness.arc.arms import Arm
from harness.arc.encode import rows
from harness.arc.score import score, vote
from harness.arc.task import Solutions, Task
from harness.predict.prediction import Prediction
from harness.records.arm import ArmResult, CurvePoint, TuneSpec, mean_loss
from harness.records.cell import TUNING_RULE, Cell
from harness.tune.checkpoint import Checkpointer
from harness.tune.runner import Answers, ArmRunner


def run(
    trial: TuneSpec,
    puzzles: Sequence[Task],
    solutions: Solutions,
    arms: Sequence[Arm],
    store: Any,
    note: Callable[[str], None],
    on_step: Callable[[str, int, int, float], None] = lambda arm, step, total, loss: None,
    on_answers: Callable[[int, int], None] = lambda done, total: None,
    fresh: bool = False,
    foresee: Callable[[Cell], Prediction | None] | None = None,
) -> list[ArmResult]:
    """The results of `arms` in order, from the record where they are there already.

    The model is loaded once, for the first arm that must be run; every arm (and, with one adapter a task, every task)
    starts from the same adapter. With `foresee`, which predicts cells, memory is filled as harness.tune.autotune finds
    best. An arm that was stopped goes on from its last checkpoint. Raises UserError where the
    model has no tokenizer, and where no question or no training example fits the context.
    """
    from harness.hardware.environment import commit, versions
    from harness.train import distributed

    installed, results, subject = versions(), [], None
    known = store.rows()
    truths = {name: solutions[name] for name in trial.tasks}
    for arm in arms:
        key = trial.key(arm.name, installed)
        keeper = Checkpointer(
            store.folder / "checkpoints" / f"{key}.pt", note, fresh, writes=distributed.is_rank_zero()
        )
        if key in known and not fresh:
            keeper.done()  # killed after its row was written, the arm left one
            note(f"{arm.name}: from the record")
            results.append(known[key])
            continue
        if subject is None:
            note(f"loading {trial.model.name}")
            subject = ArmRunner(trial, puzzles, truths, on_answers)
            note(f"kernels: {subject.kernels}")
            if foresee and (trained := [each for each in arms if each.examples]):
                subject.fit(trained[0], foresee, note)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        found = subject.run(arm, keeper, on_step)
        row = ArmResult(
            key=key,
            arm=arm.name,
            spec=trial,
            versions=installed,
            commit=commit(),
            started=started,
            coverage=subject.coverage,
            scores=tuple(score(found.answers, truths)),
            attempts={
                name: tuple(tuple(map(rows, vote(each))) for each in tasks) for name, tasks in found.answers.items()
            },
            step_losses=tuple(found.step_losses),
            answer_losses=tuple(found.losses),
            train_s=found.train_s,
            decode_s=found.decode_s,
            used=found.used,
            too_long=found.too_long,
            untrained=found.untrained,
            asked=found.asked,
            skipped=found.skipped,
            rule=TUNING_RULE,
            curve_points=tuple(_checkpoint(*point, truths) for point in found.curve),
        )
        if distributed.is_rank_zero():
            store.add(row)
        keeper.done()
        solved, spent = sum(row.solved), f"{row.train_s:.0f} s training, {row.decode_s:.0f} s decoding"
        note(f"{arm.name}: {solved} of {len(row.scores)} tasks, {spent}")
        results.append(row)
    return results


def _checkpoint(steps: int, answers: Answers, losses: Sequence[tuple[float, int]], truths: Solutions) -> CurvePoint:
    return CurvePoint(steps, mean_loss(losses), tuple(each.attempts for each in score(answers, truths)))
