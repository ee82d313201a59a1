"""From predictions to metrics: votes over views, two attempts, and what each is compared with.

The definitions are in docs/accuracy.md. A task that was not answered, or failed, is wrong and stays in the denominator.
"""

from collections.abc import Mapping, Sequence

from harness.arc.task import Grid, Solutions
from harness.records.arm import TaskScore

ATTEMPTS = 2


def vote(answers: Sequence[Grid | None], attempts: int = ATTEMPTS) -> tuple[Grid, ...]:
    """The `attempts` grids that most views answered, the most frequent first; of equals the one answered first.

    None (an answer that was no grid) has no vote; without any vote there is no attempt.
    """
    counts: dict[Grid, int] = {}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    return tuple(sorted(counts, key=lambda grid: -counts[grid])[:attempts])


def cells_right(predicted: Grid | None, truth: Grid) -> float:
    """Share of the truth's cells that `predicted` has right; 0 where the shape differs or there is no grid."""
    if predicted is None or not same_shape(predicted, truth):
        return 0.0
    right = sum(a == b for row, true in zip(predicted, truth, strict=True) for a, b in zip(row, true, strict=True))
    return right / (len(truth) * len(truth[0]))


def same_shape(predicted: Grid | None, truth: Grid) -> bool:
    return predicted is not None and len(predicted) == len(truth) and len(predicted[0]) == len(truth[0])


def score_task(name: str, answers: Sequence[Sequence[Grid | None]], truths: Sequence[Grid]) -> TaskScore:
    """The score of one task: `answers` holds for each test input what each view answered, already inverted.

    Test inputs without answers (none was tried, or the task failed) count as wrong. Raises ValueError for more answers
    than test inputs.
    """
    if len(answers) > len(truths):
        raise ValueError(f"{name}: answers for {len(answers)} test inputs, of which there are {len(truths)}")
    padded = [*answers, *([()] * (len(truths) - len(answers)))]
    inputs = [_score_input(seen, truth) for seen, truth in zip(padded, truths, strict=True)]
    return TaskScore(name, *(sum(column) / len(truths) for column in zip(*inputs, strict=True)))


def _score_input(seen: Sequence[Grid | None], truth: Grid) -> tuple[float, ...]:
    """The numbers of a TaskScore, in its order."""
    tried = vote(seen)
    first = tried[0] if tried else None
    return (
        float(truth in tried),
        sum(answer == truth for answer in seen) / len(seen) if seen else 0.0,
        cells_right(first, truth),
        float(same_shape(first, truth)),
        float(first is not None),
    )


def score(predicted: Mapping[str, Sequence[Sequence[Grid | None]]], truths: Solutions) -> list[TaskScore]:
    """The scores of all tasks of `truths`, in its order; a task without a prediction is wrong."""
    return [score_task(name, predicted.get(name, ()), outputs) for name, outputs in truths.items()]
