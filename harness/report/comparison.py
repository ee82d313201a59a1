"""Arms beside a first one on the same tasks, by nats per grid and by tasks solved, and the last line on the best."""

from collections.abc import Callable, Sequence

from rich.table import Table

from harness.analysis.comparison import SIGNIFICANT, Comparison, against, chosen
from harness.analysis.retraining import Noise
from harness.records.arm import ArmResult
from harness.report.format import number
from harness.report.style import plain_table

MOST_TASKS = 100_000  # a number beyond says nothing more


def comparison_table(
    comparisons: Sequence[Comparison],
    heading: str = "arm",
    name: Callable[[Comparison], str] = lambda c: c.second.label,
) -> Table:
    """One row per comparison; losses first, for they tell arms apart long before solved tasks do."""
    table = plain_table(f"<{heading}|nats/\ngrid|diff.|95 %|p|Holm|solved|points|p|Holm|tasks to\ntell")
    for c in comparisons:
        nats = [f"{c.nats[1]:+.2f}", f"{c.nats[0]:+.2f} to {c.nats[2]:+.2f}"] if c.nats else ["-", "-"]
        table.add_row(
            name(c),
            number(c.second.grid_nll),
            *nats,
            p_value(c.nats_p),
            p_value(c.nats_holm),
            str(sum(c.second.solved)),
            f"{100 * c.gain[1]:+.1f}",
            p_value(c.solved_p),
            p_value(c.solved_holm),
            count(c.tasks_to_tell),
        )
    return table


def p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value >= 0.001 else "<.001"


def count(tasks: int | None) -> str:
    if tasks is None:
        return "-"
    return str(tasks) if tasks <= MOST_TASKS else f">{MOST_TASKS}"


def best_line(rows: Sequence[ArmResult], noise: Noise) -> tuple[ArmResult, str]:
    """The best arm, and the sentence on it: what tells it from the first one, and its accuracy less the choice's luck.

    The best is the one of highest accuracy, of equal ones that of the lowest loss.
    """
    best = max(rows, key=lambda row: (row.mean("attempts"), -(row.token_loss or 0)))
    tasks, first = len(best.scores), rows[0]
    solved = f"{100 * best.mean('attempts'):.1f} % of {tasks} tasks"
    others = [row for row in rows if row is not first]
    if not others:
        return best, f"Best arm: {best.label}, {solved}."
    compared = against(first, others, noise)
    if not any(c.told_apart for c in compared):
        leads = f"; highest: {best.label}, {solved}"
        return best, f"Best arm: none is told apart from {first.label}{_nearest(compared)}{leads}."
    text = f"Best arm: {best.label}, {solved}"
    low, middle, high = chosen([row.by_task for row in rows], rows.index(best), noise.accuracy)
    text += f"; less the luck of being chosen {100 * middle:.1f} % ({100 * low:.0f} to {100 * high:.0f})."
    if best is first:
        worse = [c.second.label for c in compared if c.told_apart and not c.better]
        return best, text + (f" {', '.join(worse)} told apart from it, and worse." if worse else "")
    own = next(c for c in compared if c.second is best)
    return best, f"{text} {_gain(own, first)}{_ties(best, rows, noise)}"


def _gain(c: Comparison, first: ArmResult) -> str:
    """What tells an arm from the first one; and of accuracy, where that does not, how many tasks would."""
    loss = ""
    if c.nats and c.nats_holm is not None:
        low, middle, high = c.nats
        change = f"{abs(middle):.3g} nats per grid ({abs(high):.3g} to {abs(low):.3g})" if middle < 0 else ""
        told = "p <.001" if c.nats_holm < 0.001 else f"p {c.nats_holm:.2g}"
        if c.nats_holm < SIGNIFICANT:
            loss = f"Tuning works: {change} less than {first.label}, {told}. " if change and c.second.steps else ""
            loss = loss or f"{middle:+.3g} nats per grid against {first.label}, {told}. "
        else:
            loss = f"Its loss is not told apart from {first.label}'s ({told}). "
    if c.solved_holm is not None and c.solved_holm < SIGNIFICANT:
        return f"{loss}Tasks solved: {100 * c.gain[1]:+.1f} points, p {p_value(c.solved_holm)}."
    more = f"; some {count(c.tasks_to_tell)} tasks would tell such a gain" if c.tasks_to_tell else ""
    return f"{loss}Tasks solved: {100 * c.gain[1]:+.1f} points, not told apart (p {p_value(c.solved_holm)}){more}."


def _ties(best: ArmResult, rows: Sequence[ArmResult], noise: Noise) -> str:
    """The arms that are not told apart from the best."""
    others = [row for row in rows if row is not best and row is not rows[0]]
    tied = [c.second.label for c in against(best, others, noise) if not c.told_apart]
    return f" Not told apart from it: {', '.join(tied)}." if tied else ""


def _nearest(compared: Sequence[Comparison]) -> str:
    """The smallest p of the loss and of the tasks solved, in words."""
    nats = [c.nats_holm for c in compared if c.nats_holm is not None]
    solved = [c.solved_holm for c in compared if c.solved_holm is not None]
    return f" (p {p_value(min(nats, default=None))} by loss, {p_value(min(solved, default=None))} by tasks solved)"
