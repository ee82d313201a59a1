"""Pictures of cells over time, one per model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.history import History
from harness.digits import number
from harness.report import history as table
from harness.report.format import unlike
from harness.report.page.canvas import Picture, Tips, colour_of, legend_above, log_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MODELS, MOST_LINES = 4, 6
_MARKERS = "osD^v<"


def pictures(histories: Sequence[History], files: int) -> list[Picture]:
    """Per model the cells with most measurements, of these the ones that changed most."""
    by_model: dict[str, list[History]] = {}
    for history in histories:
        by_model.setdefault(history.row.cell.model.name, []).append(history)
    models = sorted(by_model, key=lambda name: -sum(len(history.moments) for history in by_model[name]))
    return [_picture(name, by_model[name], number, files) for number, name in enumerate(models[:MOST_MODELS], 1)]


def _picture(model: str, histories: list[History], place: int, files: int) -> Picture:
    ordered = sorted(histories, key=lambda h: (-len(h.moments), -abs(h.change[1] - 1)))[:MOST_LINES]
    several = len({history.row.cell.device_name for history in ordered}) > 1
    lines = dict(zip(unlike([_label(history, several) for history in ordered]), ordered, strict=True))
    colours = colour_of(list(lines))

    def paint(axes: "Axes", tips: Tips) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

        for i, (label, history) in enumerate(lines.items()):
            moments = history.moments
            errors = [min(0.95, m.half) * m.step_s for m in moments]
            drawn = axes.errorbar(
                date2num([m.when for m in moments]), [m.step_s for m in moments], yerr=errors,
                fmt=_MARKERS[i % 6] + "-", color=colours[label], elinewidth=1, label=short(label, 24),
            )  # fmt: skip
            tips.add(drawn.lines[0], [
                f"{label}, {m.when:%Y-%m-%d %H:%M}: {number(m.step_s)} s ± {100 * m.half:.0f} %, commit "
                f"{(m.row.commit or 'unknown')[:10]}, torch {m.row.versions.get('torch', 'unknown')}"
                for m in moments
            ])  # fmt: skip
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        locator = AutoDateLocator(maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_ylabel("seconds per step")
        legend_above(axes)

    notes = " ".join(table.notes(ordered)[:3])
    return Picture(
        f"history-{place}",
        f"Over time, {short(model, 40)}",
        f"Seconds of an optimiser step at each measurement in {files} records, with 95 % intervals; point at a mark "
        f"for commit and versions. {notes}".strip(),
        f"Seconds per step of {len(lines)} cells over time.",
        paint,
    )


def _label(history: History, several: bool) -> str:
    cell = history.row.cell
    return f"{cell.label} {cell.context}" + (f" {cell.device_name}" if several else "")
