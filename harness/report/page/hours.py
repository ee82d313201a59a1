"""Pictures of hours: of every cell's whole run, and against accuracy."""

from typing import TYPE_CHECKING

from harness.analysis.candidates import Candidate, interval
from harness.analysis.verdict import FITS, TIGHT, TOO_SLOW, UNSURE
from harness.catalog.published import ACCURACIES, SOURCE
from harness.report.format import cell_name, hours
from harness.report.page.canvas import COLOURS, Picture, Tips, log_ticks, short
from harness.report.page.judged import Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 20
_OF_WORD = {FITS: "good", TIGHT: "warn", UNSURE: "warn", TOO_SLOW: "bad"}


def pictures(judged: Judged) -> list[Picture]:
    return [*_by_cell(judged), *_against_accuracy(judged)]


def _by_cell(judged: Judged) -> list[Picture]:
    """A bar from the low to the high end of each cell's run, the quickest first, and a line at the budget."""
    rows = sorted((r for r in judged.content.rows if r.key in judged.runs), key=lambda r: judged.runs[r.key].mid)
    shown, goal = rows[:MOST_BARS], judged.goal
    if not shown:
        return []
    spans = [judged.runs[row.key].span for row in shown]

    def paint(axes: "Axes", tips: Tips) -> None:
        axes.set_position((0.35, axes.get_position().y0, 0.61, axes.get_position().height))
        for y, (row, span) in enumerate(zip(shown, spans, strict=True)):
            colour = COLOURS[_OF_WORD.get(judged.words[row.key], "muted")]
            bar = axes.plot([span.low, span.high], [y, y], color=colour, linewidth=4, alpha=0.45, solid_capstyle="butt")
            dot = axes.plot([span.mid], [y], "o", color=colour)
            text = f"{cell_name(row.cell)}: {hours(span.low, span.mid, span.high)} h, {judged.words[row.key]}"
            tips.add(text, *bar)
            tips.add(text, *dot)
        axes.axvline(goal.budget_hours, color=COLOURS["ink"], linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(f"budget {goal.budget_hours:g} h", (goal.budget_hours, 1), (0, 3), textcoords="offset points",
                      xycoords=("data", "axes fraction"), ha="center", fontsize=10)  # fmt: skip
        axes.set_yticks(range(len(shown)), [short(cell_name(row.cell), 25) for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        ends = [end for span in spans for end in (span.low, span.high)] + [goal.budget_hours]
        if max(ends) > 15 * max(1e-9, min(ends)) and min(ends) > 0:
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        else:
            axes.set_xlim(0, 1.08 * max(ends))
        axes.set_xlabel("hours of the whole run")

    left_out = f" The {len(shown)} quickest of {len(rows)} cells." if len(rows) > len(shown) else ""
    return [
        Picture(
            "hours",
            "Hours of the whole run",
            "Dot: the middle; bar: the 95 % interval; green fits, amber is tight or unsure, red is too slow for "
            f"{goal.budget_hours:g} h and {goal.steps} steps.{left_out}",
            f"Hours of {len(shown)} cells with a line at the budget of {goal.budget_hours:g} hours.",
            paint,
            height=96 + 20 * max(4, len(shown)),
        )
    ]


def _against_accuracy(judged: Judged) -> list[Picture]:
    """Measured accuracies with both intervals, the front of those that nothing beats, and published ones beside."""
    scored, goal = [c for c in judged.listed if c.result], judged.goal
    published = [(c, ACCURACIES[c.row.cell.model.name]) for c in judged.choice.fits
                 if not c.result and c.row.cell.model.name in ACCURACIES]  # fmt: skip
    if not scored and not published:
        return []
    front = pareto(scored)

    def paint(axes: "Axes", tips: Tips) -> None:
        for c in scored:
            result, span = c.result, c.run.span
            if result is None:
                continue
            low, high = interval(result)
            mean, on_front = result.mean("attempts"), c in front
            colour = COLOURS["s0" if on_front else "muted"]
            drawn = axes.errorbar(
                [span.mid], [100 * mean], xerr=[[span.mid - span.low], [span.high - span.mid]],
                yerr=[[100 * (mean - low)], [100 * (high - mean)]], fmt="o", color=colour, elinewidth=1.1,
            )  # fmt: skip
            name = f"{c.name} {c.context}"
            tips.add(f"{name}: {100 * mean:.1f} % ({100 * low:.0f}-{100 * high:.0f}), "
                     f"{hours(span.low, span.mid, span.high)} h", drawn.lines[0])  # fmt: skip
            if len(scored) <= 12:
                axes.annotate(short(name, 24), (span.mid, 100 * mean), (7, 5), textcoords="offset points", fontsize=9)
        steps = sorted((c.run.mid, 100 * c.result.mean("attempts")) for c in front if c.result)
        if len(steps) > 1:
            axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["s0"], linewidth=1, alpha=0.6)
        for c, paper in published:
            mark = axes.plot([c.run.mid], [100 * paper.after], "^", color=COLOURS["s1"], markerfacecolor="none")
            tips.add(f"{paper.model}, published: {100 * paper.after:.1f} %; hours of {c.name} {c.context}", *mark)
            axes.annotate(f"{paper.model}, published", (c.run.mid, 100 * paper.after), (8, -4), fontsize=9,
                          textcoords="offset points")  # fmt: skip
        axes.axvline(goal.budget_hours, color=COLOURS["ink"], linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(f"budget {goal.budget_hours:g} h", (goal.budget_hours, 1), (0, 3), textcoords="offset points",
                      xycoords=("data", "axes fraction"), ha="center", fontsize=10)  # fmt: skip
        axes.set_xlim(0, 1.25 * max([goal.budget_hours, *(c.hours_high for c in scored)]))
        top = max([100 * interval(c.result)[1] for c in scored if c.result] + [100 * p.after for _, p in published])
        axes.set_ylim(0, min(104, 1.15 * top + 2))
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


def pareto(scored: list[Candidate]) -> list[Candidate]:
    """Those that no other one beats: fewer or equal hours and a higher or equal accuracy, one of both better."""

    def values(c: Candidate) -> tuple[float, float]:
        return c.run.mid, -(c.result.mean("attempts") if c.result else 0.0)

    def beaten(c: Candidate) -> bool:
        own = values(c)
        return any(all(a <= b for a, b in zip(values(o), own, strict=True)) and values(o) != own for o in scored)

    return [c for c in scored if not beaten(c)]
