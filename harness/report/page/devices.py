"""Pictures of what a device does with longer contexts, one per model: memory, and seconds."""

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING

from harness.analysis.memory_line import fit_memory
from harness.analysis.projection import relative_half_width
from harness.analysis.token_curve import by_curve, curve_key
from harness.analysis.weight_marks import mark_behind, weight_marks
from harness.digits import number
from harness.records.measurement import Measurement
from harness.report.format import GIB, unlike
from harness.report.page.canvas import (
    COLOURS,
    Picture,
    Tips,
    colour_of,
    legend_above,
    log_ticks,
    plain_ticks,
    short,
)
from harness.report.page.judged import Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MODELS, MOST_LINES = 4, 6
_MARKERS = "osD^v<"
_DOTTED = (0, (3, 3))


def pictures(judged: Judged) -> list[Picture]:
    rows = judged.content.rows
    counts = Counter(row.cell.model.name for row in rows if row.ok)
    models = [name for name, _ in counts.most_common(MOST_MODELS)]
    made = []
    for name in models:
        own = [row for row in rows if row.cell.model.name == name]
        made += _memory(name, own, models) + _seconds(name, own, judged, models)
    return made


def _lines(rows: list[Measurement]) -> dict[str, list[Measurement]]:
    """The rows of one model by line of a picture: one per precision, recipe and device; the fullest ones."""
    groups = list(by_curve(rows).values())
    several = len({row.cell.device_name for row in rows}) > 1
    groups = sorted(groups, key=lambda group: -sum(row.ok for row in group))[:MOST_LINES]
    marks = weight_marks(rows)
    labels = [f"{group[0].cell.label}{mark_behind(group[0], marks)}" for group in groups]
    if several:
        labels = [f"{label} {group[0].cell.device_name}" for label, group in zip(labels, groups, strict=True)]
    return dict(zip(unlike(labels), groups, strict=True))


def _file(kind: str, model: str, models: list[str]) -> str:
    return f"{kind}-{models.index(model) + 1}"


def _memory(model: str, rows: list[Measurement], models: list[str]) -> list[Picture]:
    """Peaks against contexts, a line through each precision's, the device's memory, and where the line meets it."""
    lines = {label: group for label, group in _lines(rows).items() if any(r.peak_bytes and r.ok for r in group)}
    if not lines:
        return []
    limits = {row.device_total_bytes for row in rows if row.device_total_bytes}
    limit = max(limits) / GIB if limits else None
    whole = "all of the device" if len(limits) < 2 else "the largest of these devices"
    fits = {label: fit_memory(group) for label, group in lines.items()}
    colours = colour_of(list(lines))
    peaks = [_gib(row) for group in lines.values() for row in group if row.peak_bytes]

    def paint(axes: "Axes", tips: Tips) -> None:
        contexts = sorted({row.cell.context for group in lines.values() for row in group})
        for i, (label, group) in enumerate(lines.items()):
            colour = colours[label]
            peaked = [row for row in group if row.ok and row.peak_bytes]
            (dots,) = axes.plot([row.cell.context for row in peaked], [_gib(row) for row in peaked], _MARKERS[i % 6],
                                color=colour)  # fmt: skip
            tips.add(dots, [f"{label} {row.cell.context}: {_gib(row):.2f} GiB, measured" for row in peaked])
            burst = [row.cell.context for row in group if row.status == "oom"]
            (crosses,) = axes.plot(burst, [limit or max(peaks)] * len(burst), "x", color=COLOURS["bad"], markersize=8)
            tips.add(crosses, [f"{label} {context}: out of memory" for context in burst])
            if line := fits[label]:
                inside, beyond = _between(line.contexts[0], line.contexts[-1]), _between(line.contexts[-1], line.reach)
                axes.plot(inside, [line.at(n) / GIB for n in inside], color=colour)
                axes.plot(beyond, [line.at(n) / GIB for n in beyond], color=colour, linestyle=_DOTTED)
            axes.plot([], [], _MARKERS[i % 6] + "-", color=colour, label=short(label, 22))
        top = 1.3 * max(peaks)
        if limit and limit < 6 * max(peaks):
            axes.axhline(limit, color=COLOURS["bad"], linewidth=1.2)
            axes.annotate(f"{limit:.1f} GiB: {whole}", (0, limit), (3, 3), textcoords="offset points",
                          xycoords=("axes fraction", "data"), fontsize=9, color=COLOURS["bad"])  # fmt: skip
            top = max(top, 1.15 * limit)
        elif limit:
            axes.annotate(f"the device has {limit:.1f} GiB, far above", (0, 1), (3, -10), textcoords="offset points",
                          xycoords="axes fraction", fontsize=9, color=COLOURS["muted"])  # fmt: skip
        axes.set_xscale("log", base=2)
        reaches = [fit.reach for fit in fits.values() if fit]
        axes.set_xlim(contexts[0] / 1.15, max([contexts[-1], *reaches]) * 1.15)
        ticks = [contexts[0] * 2**k for k in range(25) if contexts[0] * 2**k <= axes.get_xlim()[1]]
        plain_ticks(axes.xaxis, ticks)
        axes.set_ylim(0, top)
        axes.set_xlabel("context, tokens")
        axes.set_ylabel("peak memory, GiB")
        legend_above(axes)

    where = [f"{label} at about {fit.full_at:,.0f} tokens" for label, fit in fits.items() if fit and fit.full_at]
    out = f" By the dotted line it would run out: {'; '.join(where)} (projected)." if where else ""
    return [
        Picture(
            _file("memory", model, models),
            f"Memory against context, {short(model, 40)}",
            f"Marks: measured peaks of the whole process; lines: straight through them, dotted where projected; cross: "
            f"ran out of memory.{out}",
            f"Peak memory of {len(lines)} precisions against the context.{out}",
            paint,
        )
    ]


def _gib(row: Measurement) -> float:
    return (row.peak_bytes or 0) / GIB


def _seconds(model: str, rows: list[Measurement], judged: Judged, models: list[str]) -> list[Picture]:
    """Seconds of a sequence against its tokens, with the fit that all hours are made with."""
    lines = {label: ok for label, group in _lines(rows).items() if (ok := [row for row in group if row.ok])}
    if not lines:
        return []
    colours = colour_of(list(lines))
    fits = {label: judged.curves.get(curve_key(group[0])) for label, group in lines.items()}

    def paint(axes: "Axes", tips: Tips) -> None:
        contexts = sorted({row.cell.context for group in lines.values() for row in group})
        for i, (label, group) in enumerate(lines.items()):
            colour, curve = colours[label], fits[label]
            mids = [fmean(row.micro_s) / row.cell.recipe.micro_batch for row in group]
            halves = [min(0.95, relative_half_width(row)) for row in group]
            errors = [half * mid for half, mid in zip(halves, mids, strict=True)]
            drawn = axes.errorbar([row.cell.context for row in group], mids, yerr=errors, fmt=_MARKERS[i % 6],
                                  color=colour, elinewidth=1.1)  # fmt: skip
            tips.add(drawn.lines[0], [
                f"{label} {row.cell.context}: {number(mid)} s ± {100 * half:.0f} %, measured"
                for row, mid, half in zip(group, mids, halves, strict=True)
            ])  # fmt: skip
            if curve:
                batch = group[-1].cell.recipe.micro_batch
                measured = [row.cell.context for row in group]
                inside = _between(min(measured), max(measured))
                axes.plot(inside, [curve.seconds(n, batch=batch) for n in inside], color=colour, linewidth=1.2)
                beyond = _between(max(measured), min(4 * max(measured), group[0].cell.model.max_context))
                axes.plot(beyond, [curve.seconds(n, batch=batch) for n in beyond], color=colour, linewidth=1.2,
                          linestyle=_DOTTED)  # fmt: skip
            axes.plot([], [], _MARKERS[i % 6] + "-", color=colour, label=short(label, 22))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        ticks = [contexts[0] * 2**k for k in range(25) if contexts[0] * 2**k <= axes.get_xlim()[1]]
        plain_ticks(axes.xaxis, ticks)
        axes.set_xlabel("tokens of a sequence")
        axes.set_ylabel("seconds per sequence")
        legend_above(axes)

    misfits = [f"{label} {100 * fit.error:.0f} %" for label, fit in fits.items() if fit and fit.contexts > 1]
    misfit = f" Largest misfit: {', '.join(misfits)}." if misfits else ""
    sequences = rows[0].cell.recipe.sequences_per_step
    return [
        Picture(
            _file("seconds", model, models),
            f"Seconds against tokens, {short(model, 40)}",
            f"A step is {sequences} sequences. Marks: measured, with 95 % intervals; lines: the fit by counted FLOPs, "
            f"dotted where projected.{misfit}",
            f"Seconds per sequence of {len(lines)} precisions against its tokens, both logarithmic.",
            paint,
        )
    ]


def _between(first: float, last: float, points: int = 16) -> list[float]:
    if last <= first:
        return [first]
    return [first * (last / first) ** (i / (points - 1)) for i in range(points)]
