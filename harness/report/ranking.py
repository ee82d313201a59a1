"""The candidates ranked by accuracy and cost.

harness pick
"""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.ranking import Candidate, Ranking, interval
from harness.arc.lengths import PUBLISHED
from harness.catalog.published import ACCURACIES, SOURCE
from harness.catalog.weights import RANDOM
from harness.records.cell import Goal
from harness.report.style import plain_table


def ranking_table(choice: Ranking, goal: Goal, out: Console) -> None:
    """Prints one row per candidate with what was measured and what is projected, notes, and the pick as last line."""
    # Those that do not fit stand below, so that one sees what a larger budget would buy.
    ranked = [*choice.fits, *choice.too_slow]
    shown = plain_table(
        "<model|<prec|seq\nlen|all\nh|<fits|base\n%|tuned\n% (95 %)|at\nsteps|best\n%|projected\n% (95 %)|to\nsteps"
    )
    for c in ranked:
        shown.add_row(
            Text(c.row.cell.model.name),
            c.row.cell.precision,
            str(c.row.cell.context),
            f"{c.hours_high:.3g}",
            "yes" if c in choice.fits else "no",
            f"{100 * c.baseline.mean('attempts'):.1f}" if c.baseline else "-",
            _span(c.result.mean("attempts"), *interval(c.result)) if c.result else "not measured",
            str(c.result.steps) if c.result else "-",
            f"{100 * c.chance:.0f}" if c.chance is not None else "-",
            _projected(c),
            str(c.steps) if c.estimate else "-",
        )
    if ranked:
        out.print()
        out.print(shown)
    out.print()
    for line in _notes(ranked, goal):
        out.print(Text(f"- {line}"))
    out.print(Text(f"\n{choice.why}", style="bold"))


def _span(mid: float, low: float, high: float) -> str:
    """Shares as "50 (24-76)" %."""
    return f"{100 * mid:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def _projected(c: Candidate) -> str:
    if c.estimate is None:
        return "-"
    return "refused" if c.estimate.refused else _span(c.estimate.mid, c.estimate.low, c.estimate.high)


def _notes(ranked: Sequence[Candidate], goal: Goal) -> list[str]:
    """Explains the columns and projections, and how a missing accuracy can be measured."""
    notes = [
        f"all h: load, {goal.steps} steps over ARC's lengths up to seq_len and the answers of {goal.test_tasks} tasks, "
        f"at the slow end; fits: within the whole of {goal.budget_hours:g} h. Where no decoding was measured, "
        "answering is not in it."
    ]
    # Why some hours are not over ARC's lengths.
    for why, full in (
        (
            "none of ARC's sequences is so short",
            [c for c in ranked if not c.arc and not PUBLISHED.coverage(c.row.cell.context)],
        ),
        ("no FLOPs were counted", [c for c in ranked if not c.arc and PUBLISHED.coverage(c.row.cell.context)]),
    ):
        if full:
            cells = ", ".join(f"{c.name} {c.row.cell.context}" for c in full)
            notes.append(f"{cells}: hours are of full contexts, for {why}.")
    # All accuracies in one table are on the same tasks.
    if specs := [c.result.spec for c in ranked if c.result]:
        spec = specs[0]
        notes.append(
            f"tuned: measured on {len(spec.tasks)} tasks of {spec.dataset}, 2 attempts, {spec.views} views; best: "
            "chance of being the best candidate on such tasks; projected: from the checkpoints, on the same tasks."
        )
    for c in ranked:
        if c.estimate and c.estimate.refused:
            notes.append(f"{c.name}: no projection to {c.steps} steps: {c.estimate.refused}.")
        elif c.estimate:
            notes.append(f"{c.name}: projected x{c.estimate.reach:.1f} beyond the last checkpoint.")
    for c in ranked:
        if c.result:
            continue
        name = c.row.cell.model.name
        if c.row.cell.weights != RANDOM:
            notes.append(
                f"{c.name}: accuracy not measured; harness ttft {name} --precision {c.row.cell.precision} does."
            )
            continue
        # Published accuracies are shown beside, never ranked.
        text = f"{name}: no weights: accuracy not measured; harness ttft {name} --weights PATH or hub measures it."
        if published := ACCURACIES.get(name):
            text += (
                f" Published for {published.model} ({SOURCE}): {100 * published.before:.1f} % before, "
                f"{100 * published.after:.1f} % after."
            )
        notes.append(text)
    return list(dict.fromkeys(notes))
