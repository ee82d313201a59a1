"""A record with what all tables and pictures of it are made from, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.candidates import Candidate, candidates, judged_runs
from harness.analysis.ranking import Ranking, rank_candidates
from harness.analysis.run_hours import RunHours
from harness.analysis.token_curve import TokenCurve, fit_curves
from harness.analysis.verdict import verdict
from harness.arc.task import Solutions, Task
from harness.errors import UserError
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.records.solving import SolvedTask, newest_run
from harness.records.store import NOTHING, LeftOut

MOST_ROWS = 3000  # about two megabytes of page


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a results folder holds; `solved` are the rows of its newest run of solve, `left_out` what is not used.

    `tasks` are those of the arms or of that run, with their solutions, where whoever asks has them.
    """

    folder: Path
    rows: Sequence[Measurement]
    results: Sequence[ArmResult]
    solved: Sequence[SolvedTask] = ()
    left_out: LeftOut = NOTHING
    hidden: int = 0  # older cells, of a record with very many
    tasks: tuple[Sequence[Task], Solutions] | None = None

    @classmethod
    def of(
        cls,
        folder: Path,
        rows: Sequence[Measurement],
        results: Sequence[ArmResult],
        left_out: LeftOut = NOTHING,
        tasks: tuple[Sequence[Task], Solutions] | None = None,
    ) -> "Content":
        """The newest MOST_ROWS cells, with the newest run of solve in `folder`. Raises UserError where that cannot be
        read."""
        try:
            solved = newest_run(folder)
        except OSError as problem:
            raise UserError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None
        hidden = max(0, len(rows) - MOST_ROWS)
        rows = rows[hidden:]
        return cls(
            folder=folder, rows=rows, hidden=hidden, results=results, solved=solved, left_out=left_out, tasks=tasks
        )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A record judged by a goal: `runs` by key of the ok rows, `words` the verdict of every row."""

    content: Content
    goal: Goal
    listed: Sequence[Candidate]
    runs: Mapping[str, RunHours]
    words: Mapping[str, str]
    choice: Ranking
    curves: Mapping[tuple, TokenCurve | None]

    @classmethod
    def of(cls, content: Content, goal: Goal) -> "Judged":
        rows = content.rows
        listed = candidates(rows, content.results, goal)
        runs = judged_runs(rows, listed, goal)
        named: dict[str, Any] = {row.key: verdict(row, runs.get(row.key), goal.budget_hours) for row in rows}
        return cls(
            content=content,
            goal=goal,
            listed=listed,
            runs=runs,
            words=named,
            choice=rank_candidates(listed, goal),
            curves=fit_curves(rows),
        )
