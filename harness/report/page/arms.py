"""The table of arms: losses, accuracy with its interval, p against the row above."""

from typing import NamedTuple

from harness.analysis.candidates import interval
from harness.analysis.retraining import noise_for
from harness.analysis.stats import mcnemar
from harness.records.arm import ArmResult
from harness.report import ttft
from harness.report.format import number
from harness.report.page.judged import Judged

HEADINGS = ("arm", "solved %", "95 %", "nats per token", "nats per grid", "views %", "cells %", "shape %", "steps",
            "train s", "s per task", "p")  # fmt: skip


class ArmsTable(NamedTuple):
    """The arms of one model and precision on the same tasks; `failures` and `notes` are sentences."""

    title: str
    rows: list[tuple[str, ...]]
    failures: list[str]
    notes: list[str]
    definition: str


def tables(judged: Judged) -> list[ArmsTable]:
    return [_table(group, judged) for group in ttft.by_comparison(judged.content.results)]


def _table(group: list[ArmResult], judged: Judged) -> ArmsTable:
    rows: list[tuple[str, ...]] = []
    before: ArmResult | None = None
    ok = [row for row in group if row.ok]
    for row in ok:
        low, high = interval(row)
        p = mcnemar(before.solved, row.solved) if before else None
        rows.append(
            (
                row.label,
                f"{100 * row.mean('attempts'):.1f}",
                f"{100 * low:.0f}-{100 * high:.0f}",
                number(row.token_loss),
                number(row.grid_nll),
                f"{100 * row.mean('views'):.1f}",
                f"{100 * row.mean('cells'):.0f}",
                f"{100 * row.mean('shape'):.0f}",
                str(row.steps),
                f"{row.train_s:.0f}",
                number(row.decode_s_per_task, 2),
                number(p, 2),
            )
        )
        before = row
    spec = group[0].spec
    noise = noise_for(judged.content.results, spec.scope)
    return ArmsTable(
        f"{spec.model.name} {spec.precision}, {len(spec.tasks)} tasks of {spec.dataset}",
        rows,
        [f"{row.label}: {row.status}: {row.reason}" for row in group if not row.ok],
        ttft.notes(ok, noise, judged.goal.steps) if ok else [],
        ttft.definition(spec),
    )
