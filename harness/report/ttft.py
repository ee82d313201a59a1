"""The table of test-time fine-tuning's arms: loss, accuracy with its interval, cost, and p against the arm before."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.learning_curve import accuracy_after, chance_of_best
from harness.analysis.stats import mcnemar, paired_difference, wilson
from harness.records.arm import SHARED, ArmResult
from harness.report.format import number
from harness.report.style import plain_table


def table(rows: Sequence[ArmResult], out: Console, project_to: int | None = None) -> ArmResult:
    """Prints the arms in order, and with `project_to` what their curves say of so many steps; returns the best arm.

    Each p is exact McNemar's on the tasks solved, against the row above.
    """
    trial = rows[0].spec
    shown = plain_table(
        ("arm", "left"),
        ("val\nloss", "right"),
        ("nats/\ngrid", "right"),
        ("acc.\n%", "right"),
        ("95 %", "right"),
        ("views\n%", "right"),
        ("cells\n%", "right"),
        ("shape\n%", "right"),
        ("steps", "right"),
        ("train\ns", "right"),
        ("s per\ntask", "right"),
        ("p", "right"),
    )
    before = None
    for row in rows:
        n = len(row.scores)
        low, high = wilson(sum(score.attempts for score in row.scores), n)
        p = mcnemar(before.solved, row.solved) if before else None
        shown.add_row(
            row.arm,
            number(row.token_loss),
            number(row.grid_nll),
            f"{100 * row.mean('attempts'):.1f}",
            f"{100 * low:.0f}-{100 * high:.0f}",
            f"{100 * row.mean('views'):.1f}",
            f"{100 * row.mean('cells'):.0f}",
            f"{100 * row.mean('shape'):.0f}",
            str(row.steps),
            f"{row.train_s:.0f}",
            number(row.decode_s / n, 2),
            number(p, 2),
        )
        before = row
    out.print()
    out.print(shown)
    out.print()
    scope = "one adapter for all" if trial.scope == SHARED else "one adapter a task"
    said = (
        f"{trial.model.name} {trial.precision} on {len(trial.tasks)} tasks of {trial.dataset}, {scope}, measured. "
        f"acc.: a task's test inputs answered in 2 attempts, by vote over {trial.views} views; 95 %: Wilson; tasks "
        "that were not answered count as wrong. val loss: nats a token of the true outputs. p: exact McNemar against "
        "the row above, on the same tasks."
    )
    out.print(Text(said))
    out.print(Text(f"- {_covered(rows[0])}"))
    for row in rows:
        if gaps := _gaps(row):
            out.print(Text(f"- {row.arm}: {gaps}."))
    for row in rows[1:]:
        out.print(Text(f"- {against(rows[0], row)}"))
    for row in rows:
        if project_to and row.curve_points and row.steps:
            out.print(Text(f"- {row.arm}: {projected(row, project_to)}"))
    if len(rows) > 1:
        chances = chance_of_best({row.arm: row.by_task for row in rows})
        likely = sorted(chances, key=lambda arm: -chances[arm])[:3]
        shares = ", ".join(f"{arm} {100 * chances[arm]:.0f} %" for arm in likely)
        out.print(Text(f"- Chance of being the best of these arms on such tasks (bootstrap): {shares}."))
    best = max(rows, key=lambda row: (row.mean("attempts"), -(row.token_loss or 0)))
    out.print(
        Text(f"\nBest arm: {best.arm}, {100 * best.mean('attempts'):.1f} % of {len(best.scores)} tasks.", style="bold")
    )
    return best


def by_trial(results: Sequence[ArmResult]) -> list[list[ArmResult]]:
    """The results in groups that stand in one table: of one model and precision on the same tasks, in order."""
    groups: dict[tuple, list[ArmResult]] = {}
    for row in results:
        trial = row.spec
        kind = (trial.comparison_key, trial.model.name, trial.precision, trial.weights, trial.context)
        groups.setdefault(kind, []).append(row)
    return list(groups.values())


def _covered(row: ArmResult) -> str:
    seen, context = row.coverage, row.spec.context
    examples = f" and {seen.examples_fit} of {seen.examples} leave-one-out examples" if seen.examples else ""
    return (
        f"coverage, by the model's tokenizer: {seen.questions_fit} of {seen.questions} test questions (with room to "
        f"answer){examples} fit {context} tokens whole."
    )


def _gaps(row: ArmResult) -> str:
    parts = [f"{row.skipped} of {row.asked + row.skipped} questions did not fit"] if row.skipped else []
    if row.too_long:
        parts.append(f"{row.too_long} of {row.used + row.too_long} training examples drawn did not fit")
    if row.untrained:
        parts.append(f"{row.untrained} tasks had no example to train on")
    return " and ".join(parts)


def against(first: ArmResult, second: ArmResult) -> str:
    """The gain of `second` over `first` on the same tasks: paired bootstrap, and exact McNemar."""
    low, mid, high = (100 * value for value in paired_difference(first.by_task, second.by_task))
    p = mcnemar(first.solved, second.solved)
    return (
        f"{second.arm} against {first.arm}: {mid:+.1f} points ({low:+.1f} to {high:+.1f}, 95 % by paired bootstrap), "
        f"p {number(p, 2)}."
    )


def projected(row: ArmResult, steps: int) -> str:
    """What the arm's checkpoints say of `steps`: measured and projected apart, or the reason for no projection."""
    found = accuracy_after(row.curve_points, steps)
    measured = f"measured {100 * row.mean('attempts'):.1f} % at {row.steps} steps"
    if found.refused:
        return f"{measured}; no projection to {steps}: {found.refused}."
    span = f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    return f"{measured}; projected to {steps} steps: {span} (95 %, x{found.reach:.1f} beyond the last checkpoint)."
