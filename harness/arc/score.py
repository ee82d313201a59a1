"""From predictions to scores: a vote over views gives two attempts, which are compared with the true outputs.

The definitions are in docs/accuracy.md. A task without an answer is wrong and stays in the denominator.
"""

from collections.abc import Mapping, Sequence

from harness.arc.task import Grid, Solutions
from harness.records.arm import TaskScore

ATTEMPTS = 2


def vote(answers: Sequence[Grid | None], attempts: int = ATTEMPTS) -> tuple[Grid, ...]:
    """The `attempts` most frequent grids, most frequent first; on a tie the grid that was answered first.

    None (an answer that was not a grid) does not count; there can be fewer attempts than asked for, or none.
    """
    counts: dict[Grid, int] = {}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    return tuple(sorted(counts, key=lambda grid: -counts[grid])[:attempts])


def cells_right(predicted: Grid | None, truth: Grid) -> float:
    """Share of cells in which `predicted` equals `truth`; 0 if the shape differs or there is no grid."""
    if predicted is None or not same_shape(predicted, truth):
        return 0.0
    right = sum(a == b for row, true in zip(predicted, truth, strict=True) for a, b in zip(row, true, strict=True))
    return right / (len(truth) * len(truth[0]))


def same_shape(predicted: Grid | None, truth: Grid) -> bool:
    return predicted is not None and len(predicted) == len(truth) and len(predicted[0]) == len(truth[0])


def score_task(
    name: str,
    answers: Sequence[Sequence[Grid | None]],
    truths: Sequence[Grid],
    attempts: Sequence[Sequence[Grid]] | None = None,
) -> TaskScore:
    """The score of one task. `answers` holds, per test input, the answer of each view, already mapped back;
    `attempts` the grids chosen per test input, by default those that most views voted for.

    Test inputs without answers (not tried, or the task failed) count as wrong. Raises ValueError for more answers than
    test inputs.
    """
    if len(answers) > len(truths):
        raise ValueError(f"{name}: answers for {len(answers)} test inputs, of which there are {len(truths)}")
    # Means over the test inputs, field by field.
    padded = [*answers, *([()] * (len(truths) - len(answers)))]
    chosen = [*map(vote, padded)] if attempts is None else [*attempts, *([()] * (len(truths) - len(attempts)))]
    inputs = [_score_input(*parts) for parts in zip(padded, chosen, truths, strict=True)]
    return TaskScore(name, *(sum(column) / len(truths) for column in zip(*inputs, strict=True)))


def _score_input(views: Sequence[Grid | None], attempts: Sequence[Grid], truth: Grid) -> tuple[float, ...]:
    """The numbers of a TaskScore for one test input, in the order of its fields."""
    first = attempts[0] if attempts else None
    return (
        float(truth in attempts),
        sum(answer == truth for answer in views) / len(views) if views else 0.0,
        cells_right(first, truth),
        float(same_shape(first, truth)),
        float(first is not None),
    )


def score(
    predicted: Mapping[str, Sequence[Sequence[Grid | None]]],
    truths: Solutions,
    attempts: Mapping[str, Sequence[Sequence[Grid]]] | None = None,
) -> list[TaskScore]:
    """The scores of all tasks in `truths`, in its order; a task without a prediction is wrong."""
    chosen = attempts or {}
    return [score_task(name, predicted.get(name, ()), outputs, chosen.get(name)) for name, outputs in truths.items()]
