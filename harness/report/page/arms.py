"""The tables of arms: losses and accuracy with its interval, and what tells them from the first one."""

from typing import NamedTuple

from harness.analysis.candidates import interval
from harness.analysis.comparison import Comparison
from harness.analysis.retraining import noise_for
from harness.analysis.stats import mcnemar
from harness.digits import number
from harness.records.arm import ArmResult
from harness.report import ttft
from harness.report.comparison import best_line, compared, count, p_value
from harness.report.page.judged import Judged

# As the terminal's tables have them, for the sentences below explain both.
HEADINGS = ("arm", "acc. %", "95 %", "val loss", "nats/grid", "views %", "cells %", "shape %", "steps", "train s",
            "s per task", "p")  # fmt: skip
COMPARED = ("arm", "diff.", "95 %", "p", "Holm", "points solved", "p", "Holm", "tasks to tell")


class ArmsTable(NamedTuple):
    """The arms of one model and precision on the same tasks; `compared` are rows against the first of them, whose name
    is `first`; `best`, `failures` and `notes` are sentences."""

    title: str
    best: str
    rows: list[tuple[str, ...]]
    first: str
    compared: list[tuple[str, ...]]
    failures: list[str]
    notes: list[str]
    definition: str


def tables(judged: Judged) -> list[ArmsTable]:
    return [_table(group, judged) for group in ttft.by_comparison(judged.content.results)]


def _table(group: list[ArmResult], judged: Judged) -> ArmsTable:
    ok = [row for row in group if row.ok]
    spec = ttft.trained_spec(ok or group)
    noise = noise_for(judged.content.results, spec)
    comparisons = compared(ok, noise) if ok else []
    return ArmsTable(
        title=f"{ttft.name_of(spec, judged.content.results)}, {len(spec.tasks)} tasks of {spec.dataset}",
        best=best_line(ok, comparisons, noise)[1] if ok else "",
        rows=[_row(row, ok[i - 1] if i else None) for i, row in enumerate(ok)],
        first=comparisons[0].first.label if comparisons else "",
        compared=[_compared(c) for c in comparisons],
        failures=[f"{row.label}: {row.status}: {row.reason}" for row in group if not row.ok],
        notes=ttft.notes(ok, noise, ttft.steps_at_goal(spec, judged.goal, judged.content.rows)) if ok else [],
        definition=ttft.definition(spec, judged.content.results),
    )


def _row(row: ArmResult, before: ArmResult | None) -> tuple[str, ...]:
    low, high = interval(row)
    return (
        row.label,
        f"{100 * row.mean('attempts'):.1f}",
        f"{100 * low:.0f}-{100 * high:.0f}",
        number(row.token_loss),
        number(row.grid_nll),
        *ttft.details(row),
        number(mcnemar(before.solved, row.solved), 2) if before else "-",
    )


def _compared(c: Comparison) -> tuple[str, ...]:
    nats = (f"{c.nats[1]:+.2f}", f"{c.nats[0]:+.2f} to {c.nats[2]:+.2f}") if c.nats else ("-", "-")
    return (
        c.second.label,
        *nats,
        p_value(c.nats_p),
        p_value(c.nats_holm),
        f"{100 * c.gain[1]:+.1f}",
        p_value(c.solved_p),
        p_value(c.solved_holm),
        count(c.tasks_to_tell),
    )
