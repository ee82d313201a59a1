"""Arms beside a first one on the same tasks, by nats per grid and by tasks solved, and the last line on the best."""

import math
from collections.abc import Callable, Iterator, Sequence

from rich.table import Table

from harness.analysis.comparison import Comparison, against, chosen
from harness.analysis.retraining import Noise
from harness.digits import rounded, signed
from harness.records.arm import ArmResult
from harness.report.style import plain_table

MOST_TASKS = 100_000  # a number beyond says nothing more


def comparison_tables(
    comparisons: Sequence[Comparison], heading: str = "arm", name: Callable[[Comparison], str] | None = None
) -> Iterator[Table]:
    """Two tables of one row per comparison: by loss, which tells arms apart long before solved tasks do; by those."""
    loss = plain_table(f"<{heading}|nats per grid\nfrom|to|diff.|95 %|p|Holm|tasks")
    solved = plain_table(f"<{heading}|solved\nfrom|to|points|95 %|p|Holm|tasks\nto tell")
    for c in comparisons:
        label = name(c) if name else c.second.label
        levels = [rounded(level, 4) for level in c.levels] if c.levels else ["-", "-"]
        least, mean, most = map(signed, c.nats) if c.nats else ("-", "-", "-")
        change = [mean, f"{least} to {most}" if c.nats else "-"]
        loss.add_row(label, *levels, *change, p_value(c.nats_p), p_value(c.nats_holm), str(c.nats_tasks))
        low, middle, high = (100 * value for value in c.gain)
        solved.add_row(
            label,
            str(sum(c.first.solved)),
            str(sum(c.second.solved)),
            f"{middle:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
            p_value(c.solved_p),
            p_value(c.solved_holm),
            count(c.tasks_to_tell),
        )
    yield loss
    yield solved


def p_value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return rounded(value, 2) if value >= 0.001 else "<.001"


def count(tasks: int | None) -> str:
    if tasks is None:
        return "-"
    return str(tasks) if tasks <= MOST_TASKS else f">{MOST_TASKS}"


def reference(rows: Sequence[ArmResult]) -> ArmResult:
    """What the others are compared with: the untuned model where it is among them, else the first."""
    return next((row for row in rows if not row.steps), rows[0])


def compared(rows: Sequence[ArmResult], noise: Noise) -> list[Comparison]:
    """Each of `rows` against their reference."""
    first = reference(rows)
    return against(first, [row for row in rows if row is not first], noise)


def best_line(rows: Sequence[ArmResult], comparisons: Sequence[Comparison], noise: Noise) -> tuple[ArmResult, str]:
    """The best arm, and the sentence on it: what tells it from the reference, and its accuracy less the choice's luck.

    The best is the one of highest accuracy, of equal ones that of the lowest loss, among those that are told from the
    reference and better; where there are none, among all. `comparisons` are those of `compared`.
    """
    highest = max(rows, key=_order)
    first, tasks = reference(rows), len(highest.scores)
    if not comparisons:
        return highest, f"Best arm: {highest.label}, {_solved(highest)} of {tasks} tasks."
    worse = [c.second.label for c in comparisons if c.told_apart and not c.better]
    behind = f" Told apart from it and worse: {', '.join(worse)}." if worse else ""
    gains = [c for c in comparisons if c.better]
    if not gains:
        leads = f"; highest: {highest.label}, {_solved(highest)} of {tasks} tasks."
        return (
            highest,
            f"Best arm: none is told apart from {first.label} as better{_nearest(comparisons)}{leads}{behind}",
        )
    own = max(gains, key=lambda c: _order(c.second))
    best = own.second
    text = f"Best arm: {best.label}, {_solved(best)} of {tasks} tasks"
    if best is highest:
        seeds = [noise.of(row) for row in rows]
        low, middle, high = chosen([row.by_task for row in rows], rows.index(best), seeds)
        text += f"; less the luck of being chosen {100 * middle:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
    text += f". {_gain(own)}"
    others = [row for row in rows if row is not best and row is not first]
    tied = [c.second.label for c in against(best, others, noise) if not c.told_apart]
    return best, text + (f" Not told apart from it: {', '.join(tied)}." if tied else "") + behind


def _order(row: ArmResult) -> tuple[float, float]:
    loss = row.token_loss
    return row.mean("attempts"), -loss if loss is not None and math.isfinite(loss) else -math.inf


def _solved(row: ArmResult) -> str:
    return f"{100 * row.mean('attempts'):.1f} %"


def _gain(c: Comparison) -> str:
    """What tells an arm from its reference; and of accuracy, where that does not, how many tasks would."""
    beside, loss = c.first.label, ""
    if c.nats:
        low, middle, high = c.nats
        told = "p <.001" if (c.nats_holm or 0) < 0.001 else f"p {rounded(c.nats_holm or 0, 2)}"
        if not c.by_loss:
            loss = f"Its loss is not told apart from {beside}'s ({told}). "
        elif middle < 0 and c.second.steps and not c.first.steps:
            span = f"{rounded(-high)} to {rounded(-low)}"
            loss = f"Tuning works: {rounded(-middle)} nats per grid ({span}) less than {beside}, {told}. "
        else:
            loss = f"{signed(middle)} nats per grid against {beside}, {told}. "
    points = f"{100 * c.gain[1]:+.1f} points"
    if c.by_solved:
        return f"{loss}Tasks solved: {points}, p {p_value(c.solved_holm)}."
    more = f"; some {count(c.tasks_to_tell)} tasks would tell such a difference" if c.tasks_to_tell else ""
    return f"{loss}Tasks solved: {points}, not told apart (p {p_value(c.solved_holm)}){more}."


def _nearest(comparisons: Sequence[Comparison]) -> str:
    """The smallest p of the loss and of the tasks solved, in words."""
    nats = [c.nats_holm for c in comparisons if c.nats_holm is not None]
    solved = [c.solved_holm for c in comparisons if c.solved_holm is not None]
    return f" (p {p_value(min(nats, default=None))} by loss, {p_value(min(solved, default=None))} by tasks solved)"
