"""A run of solve: which worker was at which task when, and what each task took."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from harness.records.solving import SolvedTask
from harness.report.page.canvas import COLOURS, Picture, Tips, legend_above, short
from harness.report.page.judged import Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TASKS = 1000
_PARTS = (("training", "s0"), ("answering", "s1"))


def pictures(judged: Judged) -> list[Picture]:
    rows = [row for row in judged.content.solved if row.seconds > 0 and _began(row) is not None]
    return [_gantt(rows), _seconds(rows)] if rows else []


def _began(row: SolvedTask) -> float | None:
    """Seconds since the epoch; None for a time that cannot be read."""
    try:
        return datetime.fromisoformat(row.started).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def lanes(rows: Sequence[SolvedTask]) -> list[tuple[str, list[SolvedTask]]]:
    """(name, rows) per worker, as far as the record tells: of one device, what overlapped was done by several."""
    ends: list[tuple[str, float, list[SolvedTask]]] = []
    for row in sorted(rows, key=lambda row: (_began(row) or 0.0, row.key)):
        where, start = f"{row.place.host if row.place else ''} {row.device}".strip(), _began(row) or 0.0
        free = [i for i, (name, end, _) in enumerate(ends) if name == where and end <= start + 1]
        if free:
            i = max(free, key=lambda i: ends[i][1])
            ends[i] = (where, start + row.seconds, [*ends[i][2], row])
        else:
            ends.append((where, start + row.seconds, [row]))
    return [(name, own) for name, _, own in sorted(ends, key=lambda lane: lane[0])]


def _gantt(rows: list[SolvedTask]) -> Picture:
    shown = sorted(rows, key=lambda row: _began(row) or 0.0)[:MOST_TASKS]
    workers, first = lanes(shown), min(_began(row) or 0.0 for row in shown)

    def paint(axes: "Axes", tips: Tips) -> None:
        unit = _unit(max((_began(row) or 0.0) - first + row.seconds for row in shown))
        for y, (_, own) in enumerate(workers):
            for part, ((label, colour), taken) in enumerate(
                zip(_PARTS, ([r.train_s for r in own], [r.answer_s for r in own]), strict=True)
            ):
                before = [row.train_s if part else 0.0 for row in own]
                starts = [(_began(row) or 0.0) - first + b for row, b in zip(own, before, strict=True)]
                spans = [(s / unit[0], t / unit[0]) for s, t in zip(starts, taken, strict=True)]
                axes.broken_barh(spans, (y - 0.36, 0.72), facecolor=COLOURS[colour], edgecolor=COLOURS["paper"],
                                 linewidth=0.4, label=None if y else label)  # fmt: skip
            bad = [row for row in own if not row.ok]
            if bad:
                axes.plot([((_began(r) or 0.0) - first + r.seconds) / unit[0] for r in bad], [y] * len(bad), "x",
                          color=COLOURS["bad"])  # fmt: skip
        axes.set_yticks(range(len(workers)), [short(name, 12) for name, _ in workers])
        axes.set_ylim(len(workers) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit[1])
        legend_above(axes)

    left_out = f" The first {MOST_TASKS} attempts." if len(rows) > MOST_TASKS else ""
    return Picture(
        "solve-queue",
        "The queue of solve",
        f"A row per worker, a bar per attempt at a task; loading a model leaves a gap; cross: failed.{left_out}",
        f"{len(shown)} attempts by {len(workers)} workers against time.",
        paint,
        height=100 + 26 * min(16, len(workers)),
    )


def _seconds(rows: list[SolvedTask]) -> Picture:
    ordered = sorted(rows, key=lambda row: -row.seconds)[:MOST_TASKS]

    def paint(axes: "Axes", tips: Tips) -> None:
        x = range(1, len(ordered) + 1)
        train, total = [row.train_s for row in ordered], [row.seconds for row in ordered]
        axes.fill_between(x, train, step="mid", color=COLOURS["s0"], linewidth=0, label="training")
        axes.fill_between(x, train, total, step="mid", color=COLOURS["s1"], linewidth=0, label="answering")
        expected = [row.expected_s or None for row in ordered]
        if any(expected):
            axes.plot(x, [value if value else float("nan") for value in expected], ".", color=COLOURS["ink"],
                      markersize=3, label="expected before")  # fmt: skip
        axes.set_xlim(0.5, len(ordered) + 0.5)
        axes.set_ylim(0, 1.08 * max(total))
        axes.set_xlabel("attempts, the longest first")
        axes.set_ylabel("seconds")
        legend_above(axes)

    return Picture(
        "solve-seconds",
        "Seconds per task of solve",
        "What every attempt took, measured; dots: what was expected of it before it began, by all that was measured "
        "until then.",
        f"Seconds of {len(ordered)} attempts in falling order, from {ordered[0].seconds:.0f} to "
        f"{ordered[-1].seconds:.0f}.",
        paint,
    )


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "hours since the start") if seconds > 7200 else (
        (60.0, "minutes since the start") if seconds > 180 else (1.0, "seconds since the start"))  # fmt: skip
