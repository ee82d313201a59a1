"""The candidates ranked by accuracy and cost.

harness pick
"""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.candidates import Candidate
from harness.analysis.comparison import Comparison
from harness.analysis.ranking import Ranking
from harness.analysis.run_hours import MEASURED, PREDICTED
from harness.arc.lengths import PUBLISHED
from harness.catalog.published import ACCURACIES, SOURCE
from harness.catalog.weights import RANDOM
from harness.digits import number, rounded
from harness.records.cell import Goal
from harness.report import run_notes
from harness.report.comparison import comparison_tables
from harness.report.speed_notes import merged
from harness.report.style import folded, plain_table


def ranking_table(choice: Ranking, goal: Goal, out: Console) -> None:
    """Prints one row per candidate with what was measured and what is projected, notes, and the pick as last line."""
    # Those that do not fit stand below, so that one sees what a larger budget would buy.
    ranked = [*choice.fits, *choice.too_slow]
    shown = plain_table(
        "<model|<prec|seq\nlen|all\nh|<fits|base\n%|tuned\n% (95 %)|at\ndose|best\n%|projected\n% (95 %)|to\ndose"
    )
    for c in ranked:
        shown.add_row(
            Text(c.row.cell.model.name),
            folded(c.row.cell.precision + c.mark),
            str(c.context),
            rounded(c.hours_high),
            "yes" if c in choice.fits else "no",
            f"{100 * c.baseline.mean('attempts'):.1f}" if c.baseline else "-",
            _span(*c.accuracy) if c.result else "not measured",
            number(c.run.run.dose) if c.result else "-",
            f"{100 * c.chance:.0f}" if c.chance is not None else "-",
            _projected(c),
            number(c.bought.run.dose) if c.estimate else "-",
        )
    if ranked:
        out.print()
        out.print(shown)
    if choice.pairs:
        out.print(Text("\nEach against another, on the same tasks:"))
        names = {id(c.result): c.name for c in ranked if c.result}
        for table in comparison_tables(choice.pairs, "model\nand another", lambda pair: _pair(pair, names)):
            out.print(table)
            out.print()
    out.print()
    for line in _notes(ranked, goal):
        out.print(Text(f"- {line}"))
    out.print(Text(f"\n{choice.why}", style="bold"))


def _pair(c: Comparison, names: Mapping[int, str]) -> str:
    """The two models, by id of their results, the one that the row's figures are of above."""
    return f"{names[id(c.second)]}\n- {names[id(c.first)]}"


def _span(low: float, mid: float, high: float) -> str:
    """Shares as "50 (24-76)" %."""
    return f"{100 * mid:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def _projected(c: Candidate) -> str:
    if c.estimate is None:
        return "-"
    return "refused" if c.estimate.refused else _span(c.estimate.low, c.estimate.mid, c.estimate.high)


def _notes(ranked: Sequence[Candidate], goal: Goal) -> list[str]:
    """Explains the columns and projections, and how a missing accuracy can be measured."""
    notes = [*_of_hours(ranked, goal), *_of_accuracies(ranked)]
    for c in (c for c in ranked if not c.result):
        name = c.row.cell.model.name
        if c.unmatched:
            notes.append(f"{_cell(c)}: {c.unmatched}: not joined.")
            continue
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


def _of_hours(ranked: Sequence[Candidate], goal: Goal) -> list[str]:
    """What the hours are of, and where they are of less."""
    named = [(_cell(c), c.run) for c in ranked]
    notes = [run_notes.definition([c.run for c in ranked], goal)]
    for evidence in (MEASURED, PREDICTED):
        if cells := [name for name, run in named if run.evidence == evidence]:
            which = "" if len(cells) == len(named) else f" for {', '.join(cells)}"
            notes.append(f"The seconds of answering are {evidence}{which}.")
    notes += merged(run_notes.of_other_runs(named, goal))
    notes += run_notes.of_uncounted(named, goal)
    # Why some hours are not over ARC's lengths, or not of a measured context.
    for why, brief in (("none of ARC's sequences is so short", True), ("no FLOPs were counted", False)):
        if full := [_cell(c) for c in ranked if not c.run.arc and brief != bool(PUBLISHED.coverage(c.context))]:
            notes.append(f"{', '.join(full)}: hours are of full contexts, for {why}.")
    for c in (c for c in ranked if not c.at_own_context):
        reach = f", x{rounded(c.run.reach, 2)} beyond what was measured" if c.run.reach > 1 else ""
        notes.append(
            f"{_cell(c)}: no cell has this context: hours by the curve through those that were measured{reach}; memory "
            "was not measured."
        )
    return notes


def _of_accuracies(ranked: Sequence[Candidate]) -> list[str]:
    """What was measured and is projected."""
    joined = [c for c in ranked if c.result]
    notes = []
    # All accuracies in one table are on the same tasks.
    if joined and (result := joined[0].result):
        spec = result.spec
        notes = [
            f"tuned: measured on {len(spec.tasks)} tasks of {spec.dataset}, 2 attempts, {spec.views} views, less what "
            "being the best of its arms flatters it by (nested bootstrap), with Wilson's interval; dose: "
            "training sequences per task, of the accuracy and of the hours alike; best: chance of being the best "
            "candidate on such tasks; projected: from the checkpoints, on the same tasks, to what the budget allows."
        ]
    # Whose own seconds do not count.
    if slowed := [c.name for c in joined if c.result and c.result.slowed]:
        notes.append(
            f"{', '.join(dict.fromkeys(slowed))}: the fine-tune ran while others used its cores: hours are of the "
            "cell and not of its own seconds; ttft --fresh measures it again."
        )
    for c in joined:
        dose = number(c.bought.run.dose)
        if c.estimate and c.estimate.refused:
            notes.append(f"{c.name}: no projection to {dose} sequences per task: {c.estimate.refused}.")
        elif c.estimate and c.estimate.reach > 1:
            notes.append(f"{c.name}: projected x{c.estimate.reach:.1f} beyond the last checkpoint.")
    return notes


def _cell(candidate: Candidate) -> str:
    return f"{candidate.name} {candidate.context}"
