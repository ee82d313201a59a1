"""Learning curves: accuracy against optimiser steps, and where it goes with more of them."""

from typing import TYPE_CHECKING

from harness.analysis.learning_curve import MAX_REACH, MIN_CHECKPOINTS, accuracy_after
from harness.analysis.stats import wilson
from harness.records.arm import ArmResult, CurvePoint
from harness.report.page.canvas import Picture, Tips, colour_of, legend_above, plain_ticks, short
from harness.report.page.judged import Judged
from harness.report.ttft import by_comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PICTURES, MOST_LINES = 4, 6
_BEYOND = (1.5, 2.0, 4.0, MAX_REACH)  # times the last point's steps


def pictures(judged: Judged) -> list[Picture]:
    """One picture per model, precision and set of tasks that has a curve."""
    curved = [[row for row in group if row.ok and _points(row)] for group in by_comparison(judged.content.results)]
    groups = [group[:MOST_LINES] for group in curved if group]
    return [_picture(group, number) for number, group in enumerate(groups[:MOST_PICTURES], 1)]


def _points(row: ArmResult) -> list[CurvePoint]:
    """The points after the first step, in order; none where there is but one."""
    points = sorted((point for point in row.curve_points if point.steps), key=lambda point: point.steps)
    return points if len(points) > 1 else []


def _picture(group: list[ArmResult], number: int) -> Picture:
    spec = group[0].spec
    colours = colour_of([row.label for row in group])
    refused = {}
    for row in group:
        estimate = accuracy_after(row.curve_points, 2 * _points(row)[-1].steps)
        if estimate.refused:
            refused[row.label] = estimate.refused

    def paint(axes: "Axes", tips: Tips) -> None:
        tops = [5.0]
        for row in group:
            points = _points(row)
            steps = [point.steps for point in points]
            right = [(sum(point.scores), len(point.scores)) for point in points]
            shares = [100 * hits / tasks for hits, tasks in right]
            ends = [[100 * end for end in wilson(*pair)] for pair in right]
            below = [max(0.0, share - low) for share, (low, _) in zip(shares, ends, strict=True)]
            above = [max(0.0, high - share) for share, (_, high) in zip(shares, ends, strict=True)]
            colour = colours[row.label]
            drawn = axes.errorbar(steps, shares, yerr=[below, above], fmt="o-", color=colour, elinewidth=1,
                                  label=short(row.label, 24))  # fmt: skip
            tips.add(drawn.lines[0], [
                f"{row.label}: {share:.1f} % after {n} steps, measured" for n, share in zip(steps, shares, strict=True)
            ])  # fmt: skip
            tops += [high for _, high in ends]
            if row.label in refused:
                continue
            # Beyond the last point: an interval that grows.
            ahead = [accuracy_after(points, round(steps[-1] * times)) for times in _BEYOND]
            x = [estimate.steps for estimate in ahead]
            axes.plot([steps[-1], *x], [shares[-1], *(100 * e.mid for e in ahead)], "--", color=colour, linewidth=1.2)
            lows, highs = [100 * e.low for e in ahead], [100 * e.high for e in ahead]
            axes.fill_between([steps[-1], *x], [ends[-1][0], *lows], [ends[-1][1], *highs], color=colour, alpha=0.13,
                              linewidth=0)  # fmt: skip
            tops += highs
        axes.set_xscale("log", base=2)
        shown = sorted({point.steps for row in group for point in row.curve_points if point.steps})
        plain_ticks(axes.xaxis, [shown[0] * 2**k for k in range(25) if shown[0] * 2**k <= axes.get_xlim()[1]])
        axes.set_ylim(0, min(104, 1.08 * max(tops)))
        axes.set_xlabel("optimiser steps")
        axes.set_ylabel("tasks solved, %")
        legend_above(axes)

    why = "; ".join(f"{label}: no projection: {reason}" for label, reason in refused.items())
    return Picture(
        f"learning-{number}",
        f"Learning curves, {short(f'{spec.model.name} {spec.precision}', 40)}",
        f"Dots: measured on {len(spec.tasks)} tasks, with Wilson's 95 % intervals; dashed, with a band: projected, up "
        f"to {MAX_REACH:g} times the last dot's steps, from {MIN_CHECKPOINTS} dots on.{f' {why}.' if why else ''}",
        f"Accuracy of {len(group)} arms against optimiser steps.",
        paint,
    )
