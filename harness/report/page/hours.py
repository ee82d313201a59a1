"""Pictures of hours: of every cell's whole run, and against accuracy."""

import math
from typing import TYPE_CHECKING

from harness.analysis.candidates import Candidate, interval
from harness.analysis.run_hours import Span
from harness.analysis.verdict import FITS, TIGHT, TOO_SLOW, UNSURE
from harness.analysis.weight_marks import mark_behind, weight_marks
from harness.catalog.published import ACCURACIES, SOURCE, Published
from harness.records.measurement import Measurement
from harness.report.format import cell_name, hours
from harness.report.page.canvas import COLOURS, Picture, Tips, log_ticks, short
from harness.report.page.judged import Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS, MOST_NAMES = 20, 12
_FAR = 1e4  # times as many hours are beyond every edge
_OF_WORD = {FITS: "good", TIGHT: "warn", UNSURE: "warn", TOO_SLOW: "bad"}


def pictures(judged: Judged) -> list[Picture]:
    return [*_by_cell(judged), *_against_accuracy(judged)]


def _by_cell(judged: Judged) -> list[Picture]:
    """A bar from the low to the high end of each cell's run, the quickest first, and a line at the budget."""
    rows = sorted((r for r in judged.content.rows if r.key in judged.runs), key=lambda r: judged.runs[r.key].mid)
    shown, goal = rows[:MOST_BARS], judged.goal
    if not shown:
        return []
    spans, marks = [judged.runs[row.key].span for row in shown], weight_marks(judged.content.rows)

    def name(row: Measurement) -> str:
        return cell_name(row.cell, mark_behind(row, marks))

    # Too few samples leave an interval open: its bar goes to the edge.
    reached = [end for span in spans for end in (span.low, span.mid, span.high)] + [goal.budget_hours]
    edge = 1.25 * max(filter(math.isfinite, reached))

    def paint(axes: "Axes", tips: Tips) -> None:
        axes.set_position((0.35, axes.get_position().y0, 0.61, axes.get_position().height))
        colours = [COLOURS[_OF_WORD.get(judged.words[row.key], "muted")] for row in shown]
        lows, highs = [span.low for span in spans], [min(span.high, edge) for span in spans]
        axes.hlines(range(len(shown)), lows, highs, colors=colours, linewidth=4, alpha=0.45)
        for colour in dict.fromkeys(colours):
            own = [y for y in range(len(shown)) if colours[y] == colour]
            (dots,) = axes.plot([spans[y].mid for y in own], own, "o", color=colour)
            tips.add(dots, [f"{name(shown[y])}: {_text(spans[y], judged.words[shown[y].key])}" for y in own])
        _draw_budget(goal.budget_hours, axes)
        axes.set_yticks(range(len(shown)), [short(name(row), 25) for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        ends = [*lows, *highs, goal.budget_hours]
        if max(ends) > 15 * max(1e-9, min(ends)) and min(ends) > 0:
            axes.set_xscale("log")
            axes.set_xlim(0.8 * min(ends), edge)
            log_ticks(axes.xaxis)
        else:
            axes.set_xlim(0, min(edge, 1.08 * max(ends)))
        axes.set_xlabel("hours of the whole run")

    left_out = f" The {len(shown)} quickest of {len(rows)} cells." if len(rows) > len(shown) else ""
    return [
        Picture(
            "hours",
            "Hours of the whole run",
            "Dot: the middle; bar: the 95 % interval; green fits, amber is tight or unsure, red is too slow for "
            f"{goal.budget_hours:.7g} h and {goal.steps} steps.{left_out}",
            f"Hours of {len(shown)} cells with a line at the budget of {goal.budget_hours:.7g} hours.",
            paint,
            height=76 + 22 * max(4, len(shown)),
        )
    ]


def _text(span: Span, word: str) -> str:
    return f"{hours(span.low, span.mid, span.high)} h, {word}"


def _against_accuracy(judged: Judged) -> list[Picture]:
    """Measured accuracies with both intervals, the front of those that nothing beats, and published ones beside."""
    scored, goal = [c for c in judged.listed if c.result], judged.goal
    published = [(c, ACCURACIES[c.row.cell.model.name]) for c in judged.choice.fits
                 if not c.result and c.row.cell.model.name in ACCURACIES]  # fmt: skip
    if not scored:
        return []
    front = pareto(scored)

    def paint(axes: "Axes", tips: Tips) -> None:
        for group, colour in ((front, "s0"), ([c for c in scored if c not in front], "muted")):
            _draw_scored(group, COLOURS[colour], axes, tips)
        if len(scored) <= MOST_NAMES:
            for c in scored:
                axes.annotate(short(f"{c.name} {c.context}", 24), (c.run.mid, _percent(c)), (7, 5), fontsize=9,
                              textcoords="offset points")  # fmt: skip
        if len(front) > 1:
            axes.step(*zip(*sorted((c.run.mid, _percent(c)) for c in front), strict=True), where="post",
                      color=COLOURS["s0"], linewidth=1, alpha=0.6)  # fmt: skip
        _draw_published(published, axes, tips)
        _draw_budget(goal.budget_hours, axes)
        ends = [c.hours_high for c in scored] + [c.run.mid for c in scored] + [c.run.mid for c, _ in published]
        axes.set_xlim(0, 1.2 * max(goal.budget_hours, *filter(math.isfinite, ends)))
        tops = [100 * interval(c.result)[1] for c in scored if c.result] + [100 * p.after for _, p in published]
        axes.set_ylim(0, min(104, 1.15 * max(tops) + 2))
        axes.set_xlabel("hours of the whole run")
        axes.set_ylabel("tasks solved, %")

    caption = (
        "Filled: measured, with 95 % intervals both ways; blue ones and their line: nothing measured is both quicker "
        "and more accurate (Pareto front)."
    )
    if published:
        caption += (
            f" Triangle: published by others ({SOURCE}) for a model of these shapes, at the hours measured here; shown "
            "beside, never ranked."
        )
    alt = f"{len(scored)} measured accuracies and {len(published)} published ones against hours."
    return [Picture("accuracy", "Hours against accuracy", caption, alt, paint)]


def _percent(c: Candidate) -> float:
    return 100 * c.result.mean("attempts") if c.result else 0.0


def _draw_scored(group: list[Candidate], colour: str, axes: "Axes", tips: Tips) -> None:
    if not group:
        return
    x, y, ends, texts = [c.run.span for c in group], [_percent(c) for c in group], [], []
    for c, span in zip(group, x, strict=True):
        low, high = (100 * end for end in interval(c.result)) if c.result else (0.0, 0.0)
        ends.append((low, high))
        own = hours(span.low, span.mid, span.high)
        texts.append(f"{c.name} {c.context}: {_percent(c):.1f} % ({low:.0f}-{high:.0f}), {own} h, measured")
    drawn = axes.errorbar(
        [s.mid for s in x], y,
        # One that is open goes beyond the edge.
        xerr=[[s.mid - s.low for s in x], [min(s.high, _FAR * max(1.0, s.mid)) - s.mid for s in x]],
        yerr=[[max(0.0, v - low) for v, (low, _) in zip(y, ends, strict=True)],
              [max(0.0, high - v) for v, (_, high) in zip(y, ends, strict=True)]],
        fmt="o", color=colour, elinewidth=1.1,
    )  # fmt: skip
    tips.add(drawn.lines[0], texts)


def _draw_published(published: list[tuple[Candidate, Published]], axes: "Axes", tips: Tips) -> None:
    """Hollow marks; the name stands once per model, at its first one."""
    published = sorted(published, key=lambda pair: pair[0].run.mid)
    named = set()
    for c, paper in published:
        (mark,) = axes.plot([c.run.mid], [100 * paper.after], "^", color=COLOURS["s1"], markerfacecolor="none")
        tips.add(mark, [f"{paper.model}, published: {100 * paper.after:.1f} %; hours of {c.name} {c.context}"])
        if paper.model not in named:
            axes.annotate(f"{paper.model}, published", (c.run.mid, 100 * paper.after), (0, 8), fontsize=9,
                          textcoords="offset points")  # fmt: skip
            named.add(paper.model)


def _draw_budget(budget_hours: float, axes: "Axes") -> None:
    axes.axvline(budget_hours, color=COLOURS["ink"], linestyle=(0, (4, 3)), linewidth=1.2)
    axes.annotate(f"budget {budget_hours:.7g} h", (budget_hours, 1), (0, 3), textcoords="offset points",
                  xycoords=("data", "axes fraction"), ha="center", fontsize=10)  # fmt: skip


def pareto(scored: list[Candidate]) -> list[Candidate]:
    """Those that no other one beats: fewer or equal hours and a higher or equal accuracy, one of both better."""

    def values(c: Candidate) -> tuple[float, float]:
        return c.run.mid, -(c.result.mean("attempts") if c.result else 0.0)

    def beaten(c: Candidate) -> bool:
        own = values(c)
        return any(all(a <= b for a, b in zip(values(o), own, strict=True)) and values(o) != own for o in scored)

    return [c for c in scored if not beaten(c)]
