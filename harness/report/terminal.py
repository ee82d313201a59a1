"""All tables of a record: speed, and where it was measured accuracy and the pick."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.candidates import candidates, judged_runs
from harness.analysis.ranking import rank_candidates
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.records.solving import SolvedTask
from harness.report import ranking, solving, speed, ttft, weight_notes

MOST_NOTES = 8  # that a person reads under a table
MOST_ROWS = 300  # of a table that a person reads, and that is drawn within a second or two


def show(
    rows: Sequence[Measurement],
    results: Sequence[ArmResult],
    goal: Goal,
    out: Console,
    most_notes: int | None = None,
    solved: Sequence[SolvedTask] = (),
) -> None:
    """Prints the tables; the last line says which candidate to take, the same one that `harness pick` takes. Of the
    notes on cells all, or at most so many of those that ask for something. `solved` are the rows of the newest run of
    solve in the record."""
    if len(rows) > MOST_ROWS:
        out.print(f"The record has {len(rows):,} cells. The tables show the newest {MOST_ROWS}; --csv FILE writes all.")
    listed = candidates(rows, results, goal)
    if rows or not (results or solved):
        speed.summary(rows[-MOST_ROWS:], judged_runs(rows, listed, goal), goal, out, most_notes)
    weight_notes.show(rows, results, out)
    choice = rank_candidates(listed, goal)
    for group in ttft.by_comparison(results):
        spec = ttft.trained_spec(group)
        ttft.arms_table(group, out, ttft.steps_at_goal(spec, goal, rows), results)
    if results:
        ranking.ranking_table(choice, goal, out)
    elif rows:
        out.print(Text(f"\n{choice.why}", style="bold"))
    if solved:
        out.print(Text(f"\n{solving.sentence(solved)}"))
