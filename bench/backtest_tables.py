"""The tables of the back-test as lines of Markdown (bench.backtest)."""

import math
from collections.abc import Sequence
from statistics import median

from bench.reference_rows import Row

_BUDGET_H = 12


def table(title: str, rows: Sequence[Row]) -> list[str]:
    rule = any(row.rule for row in rows)
    out = [f"## {title}", "", f"| row | what | measured or published | predicted | error |{' one-line rule |' * rule}"]
    out.append("|---|---|---|---|---|" + "---|" * rule)
    for row in rows:
        one_line = f" {100 * (row.rule / row.real - 1):+.0f} % |" if row.rule else " |" * rule
        figures_of = f"{row.real:.3g} | {row.predicted:.3g} | {100 * row.error:+.1f} %"
        out.append(f"| {row.name} | {row.group}, {row.unit} | {figures_of} |{one_line}")
    out.append("")
    units = dict.fromkeys(row.unit for row in rows)
    out += [f"{unit}: {_figures([row for row in rows if row.unit == unit])}." for unit in units]
    hours = [(row.real * 100 / 60, row.predicted * 100 / 60) for row in rows if row.unit == "min"]
    if hours:
        sides = sum((real > _BUDGET_H) == (foreseen > _BUDGET_H) for real, foreseen in hours)
        out.append(f"{sides} of {len(hours)} on the right side of {_BUDGET_H} h for 1000 steps.")
    return [*out, ""]


def _figures(rows: Sequence[Row]) -> str:
    sizes = sorted(abs(row.error) for row in rows)
    return (
        f"{len(sizes)} rows, median error {100 * median(sizes):.1f} %, 90th percentile {100 * _ninth(sizes):.1f} %, "
        f"worst {100 * sizes[-1]:.1f} %"
    )


def _ninth(sizes: Sequence[float]) -> float:
    return sizes[math.ceil(0.9 * len(sizes)) - 1]


def by_card(rows: Sequence[Row]) -> list[str]:
    """Published rows by card, class and evidence, beside the one-line rule; then exact and near ones together."""
    out = ["## Published steps by card, class and evidence, each card left out", ""]
    out.append(
        "| card | class | what | rows | median | 90th percentile | in the interval | 6N rule, median | evidence |"
    )
    out.append("|---|---|---|---|---|---|---|---|---|")
    groups = dict.fromkeys((row.unit, row.card, row.group, row.evidence) for row in rows)
    for unit, card, group, evidence in sorted(groups, reverse=True):
        chosen = [row for row in rows if (row.unit, row.card, row.group) == (unit, card, group)]
        out.append(_line(card, group, unit, chosen) + f" {evidence} |")
    together = {
        (group, unit): [row for row in rows if row.unit == unit and row.group in wanted]
        for group, wanted in (("exact, near", ("exact", "near")), ("rough", ("rough",)))
        for unit in ("s", "GiB")
    }
    out += [_line("all", group, unit, chosen) + " |" for (group, unit), chosen in together.items() if chosen]
    return [*out, "", *(f"- {lean(rows, unit)}" for unit in ("s", "GiB")), ""]


def lean(rows: Sequence[Row], unit: str) -> str:
    """To which side rough rows are off: what is assumed of them is the least, so that it is no luck."""
    rough = [row for row in rows if row.unit == unit and row.group == "rough"]
    low, held = sum(row.error < 0 for row in rough), sum(row.held for row in rough)
    return f"Of {len(rough)} rough rows ({unit}) {low} were predicted too low; the interval held {held}."


def _line(card: str, group: str, unit: str, rows: Sequence[Row]) -> str:
    sizes, held = sorted(abs(row.error) for row in rows), sum(row.held for row in rows)
    rules = [abs(row.rule / row.real - 1) for row in rows if row.rule]
    rule = f"{100 * median(rules):.0f} %" if rules else ""
    return (
        f"| {card} | {group} | {unit} | {len(rows)} | {100 * median(sizes):.1f} % | {100 * _ninth(sizes):.1f} % | "
        f"{held} of {len(rows)} | {rule} |"
    )
