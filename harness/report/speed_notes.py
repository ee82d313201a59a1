"""Notes under the table of speed: failures, kernels, what was adapted, and how far the numbers can be trusted."""

from collections.abc import Sequence
from statistics import median

from harness.analysis.stability import warnings as unsteady
from harness.digits import number
from harness.records.measurement import CROWDED, Measurement
from harness.report.format import cell_name


def failures(rows: Sequence[Measurement]) -> list[str]:
    return merged(
        [(cell_name(row.cell), f"{row.status.replace('_', ' ')}: {row.reason}.") for row in rows if not row.ok]
    )


def emulated(rows: Sequence[Measurement]) -> list[str]:
    """One line per emulated dtype: how slow it is here, and what is native."""
    emulated = {row.cell.compute_dtype: row.rate for row in rows if row.rate and not row.rate.native}
    instead = sorted({row.cell.precision for row in rows if row.cell.why.startswith("native here")})
    use = f"; {' and '.join(instead)} is native and measured too" if instead else ""
    return [
        f"* {dtype} is emulated on this device: backward matmuls reach {number(rate.backward / 1e9)} GFLOP/s{use}."
        for dtype, rate in sorted(emulated.items())
    ]


def quantized(rows: Sequence[Measurement]) -> list[str]:
    """What quantised weights compute in."""
    dtypes = {row.cell.precision: row.cell.compute_dtype for row in rows if row.cell.precision in ("int8", "int4")}
    return [f"{precision} computes in {dtype}, the native dtype here." for precision, dtype in sorted(dtypes.items())]


def kernels(rows: Sequence[Measurement]) -> list[str]:
    """Which kernels ran: one line for all rows, or one per choice."""
    named = [(f"{row.cell.model.name} {row.cell.label}", row.kernels) for row in rows if row.kernels]
    same = len({kernels for _, kernels in named}) == 1
    return [
        f"Kernels: {kernels}{'' if same else f' ({names})'}; the fastest on this device unless --kernels sets them."
        for names, kernels in _by_text(named)
    ]


def adapted(rows: Sequence[Measurement]) -> list[str]:
    """Which modules had an adapter: one line for all rows, or one per choice; then what else is to be known."""
    named = [(row.cell.model.name, row.adapted) for row in rows if row.adapted]
    same = len({adapted for _, adapted in named}) == 1
    lines = [f"Adapted: {adapted}{'' if same else f' ({names})'}." for names, adapted in _by_text(named)]
    # A note on how a model was made is shown once.
    return lines + merged([(row.cell.model.name, note) for row in rows for note in row.notes if note != CROWDED])


def crowded(rows: Sequence[Measurement]) -> list[str]:
    """The cells that were timed while others used the device's cores."""
    return merged([(cell_name(row.cell), CROWDED) for row in rows if CROWDED in row.notes])


def prediction_errors(rows: Sequence[Measurement]) -> list[str]:
    """How far off the predictions were that were made before the cells ran."""
    ratios = [(r.predicted_micro_s / median(r.micro_s), r.predicted_peak_bytes / r.peak_bytes)
             for r in rows if r.ok and r.predicted_micro_s and r.predicted_peak_bytes and r.peak_bytes]  # fmt: skip
    if not ratios:
        return []
    errors = [sorted(abs(ratio - 1) for ratio in column) for column in zip(*ratios, strict=True)]
    time, memory = (f"{100 * median(column):.0f} % (at most {100 * column[-1]:.0f} %)" for column in errors)
    cells = "cell was" if len(ratios) == 1 else "cells were"
    return [
        f"Predictions made before {len(ratios)} {cells} measured: median error {time} in the micro-step's seconds, "
        f"{memory} in memory."
    ]


def warnings(rows: Sequence[Measurement]) -> list[str]:
    return merged([(cell_name(row.cell), warning) for row in rows if row.ok for warning in unsteady(row)])


def merged(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Lines "names: text" of (name, text) pairs: a text that several names share stands once."""
    return [f"{names}: {text}" for names, text in _by_text(notes)]


def _by_text(notes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(names, text) of (name, text) pairs: per different text, the names that have it, joined by commas."""
    by_text: dict[str, list[str]] = {}
    for name, text in notes:
        by_text.setdefault(text, []).append(name)
    return [(", ".join(dict.fromkeys(names)), text) for text, names in by_text.items()]
