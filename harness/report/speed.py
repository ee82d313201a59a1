"""The summary on the terminal: rich tables that fit 80 columns, plain without a terminal."""

from collections.abc import Sequence
from statistics import fmean, median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis import projection
from harness.analysis import token_curve as fits
from harness.analysis.ranking import pick
from harness.analysis.stability import warnings
from harness.analysis.verdict import verdict
from harness.arc import lengths
from harness.catalog.kernels import AUTO
from harness.records.measurement import Measurement
from harness.report.format import gib, hours, millions, number, thousands
from harness.report.frame import curve
from harness.report.frame import curves as by_curve
from harness.report.style import folded, plain_table

FARTHEST = 8  # times the longest measured context: beyond it nothing is projected
_COLOURS = {"fits": "green", "tight": "yellow", "too slow": "red", "too big": "red", "unstable": "magenta"}


def summary(
    rows: Sequence[Measurement], budget_hours: float, steps: int, out: Console, details: bool = True, best: bool = True
) -> None:
    """Prints the tables, what they mean, the warnings, and with `best` as the last line the best candidate by speed."""
    if not rows:
        out.print("The record is empty.")
        return
    out.print()
    out.print(_main_table(rows, budget_hours, steps))
    out.print()
    out.print(Text(definition(rows, steps, budget_hours)))
    if details and any(row.ok for row in rows):
        out.print()
        out.print(_details(rows, steps))
        out.print()
        out.print(Text(_details_note()))
    out.print()
    for line in (
        *_failures(rows),
        *_emulated(rows),
        *_kernels(rows),
        *curves(rows, steps),
        *_foreseen(rows),
        *_warnings(rows),
    ):
        out.print(Text(f"- {line}"))
    if best:
        out.print(Text(f"\n{pick(rows, budget_hours, steps).why}", style="bold"))


def definition(rows: Sequence[Measurement], steps: int, budget_hours: float) -> str:
    recipe = rows[0].cell.recipe
    random = any(row.cell.weights == "random" for row in rows)
    real = any(row.cell.weights != "random" for row in rows)
    weights = "Random weights: speed and memory are real, accuracy is not measured." if random else ""
    if random and real:
        weights = "Some models have random weights: their speed and memory are real."
    marks = "".join(row.cell.recipe.mark for row in rows)
    reference = "ref: transformers' and PEFT's plain step. " if "/ref" in marks else ""
    reference += "b4: 4 sequences at once, and so on. " if "/b" in marks else ""
    chosen = any(row.cell.recipe.kernels != AUTO for row in rows)
    reference += "plain and the like: kernels that --kernels chose. " if chosen else ""
    reference += "ckpt: activations made again in the backward (ckpt-mlp: gate and up). " if "/ckpt" in marks else ""
    return (
        f"Measured on {', '.join(sorted({row.cell.device_name for row in rows}))}. A step is "
        f"{recipe.sequences_per_step} sequences of seq_len tokens, forward and backward, and one optimiser update. "
        f"{steps} steps h: load and warm-up included, with its 95 % interval; fits means its high end is under 80 % of "
        f"{budget_hours:g} h. {reference}{weights}"
    )


def _main_table(rows: Sequence[Measurement], budget_hours: float, steps: int) -> Table:
    table = plain_table(
        ("model", "left"),
        ("params\n(M)", "right"),
        ("max\nctx\n(k)", "right"),
        ("prec", "left"),
        ("seq\nlen", "right"),
        ("10\nsteps\n(min)", "right"),
        ("steps\n/min", "right"),
        (f"{steps} steps\nh (95 %)", "right"),
        ("peak\nGiB", "right"),
        ("verdict", "left"),
    )
    for row, first in _ordered(rows):
        cell, word = row.cell, verdict(row, budget_hours, steps)
        params = row.params / 1e6 if row.params else cell.model.params_m
        shown = [Text(cell.model.name), millions(params), thousands(cell.model.max_context)]
        if row.ok:
            p = projection.project(row, steps)
            speed = [number(p.step_s / 6), number(60 / p.step_s), hours(p.hours_low, p.hours_mid, p.hours_high)]
        else:
            speed = ["-", "-", "-"]
        emulated = "*" if row.rate and not row.rate.native else ""
        table.add_row(
            *(shown if first else ["", "", ""]),
            folded(cell.label + emulated),
            str(cell.context),
            *speed,
            gib(row.peak_bytes),
            Text(word, style=_COLOURS.get(word, "")),
        )
    return table


def _details(rows: Sequence[Measurement], steps: int) -> Table:
    table = plain_table(
        ("model", "left"),
        ("prec", "left"),
        ("seq\nlen", "right"),
        ("micro\nsteps", "right"),
        ("s each\n± %", "right"),
        ("tokens\n/s", "right"),
        ("TFLOP\n/s", "right"),
        ("of\npeak", "right"),
        ("free\nGiB", "right"),
        ("ARC\nh", "right"),
        ("ARC\nfits", "right"),
    )
    fitted = {key: fits.fit_token_curve(group) for key, group in by_curve(rows).items()}
    for row, first in _ordered([row for row in rows if row.ok]):
        found = fitted[curve(row)]
        arc = fits.arc_hours(found, row, row.cell.context, steps) if found else None
        peak = projection.share_of_peak(row)
        table.add_row(
            Text(row.cell.model.name) if first else "",
            folded(row.cell.label),
            str(row.cell.context),
            str(len(row.micro_s)),
            f"{number(fmean(row.micro_s))} {100 * projection.relative_half_width(row):.0f}",
            number(projection.tokens_per_second(row)),
            number((projection.achieved_flops(row) or 0) / 1e12 or None, 2),
            f"{100 * peak:.0f}%" if peak else "-",
            gib(row.margin_bytes),
            number(arc.hours_mid, 2) if arc else "-",
            f"{100 * lengths.coverage(row.cell.context):.0f}%",
        )
    return table


def _details_note() -> str:
    return (
        "of peak: counted FLOPs of the matrix products over the probed rate of the compute dtype. free: the device's "
        "memory less the peak. ARC h: hours where lengths are ARC's own, those over seq_len dropped; ARC fits: how "
        "many are left (ARC-AGI-1 evaluation, leave-one-out)."
    )


def curves(rows: Sequence[Measurement], steps: int) -> list[str]:
    """A line a model and precision: what its fit says of ARC's own lengths at the contexts one would train at."""
    said = []
    for group in by_curve(rows).values():
        found, ok = fits.fit_token_curve(group), [row for row in group if row.ok]
        if not found or (ok[0].rate and not ok[0].rate.native):
            continue
        last = max(ok, key=lambda row: row.cell.context)
        parts = []
        for context in (2048, 4096, 8192):
            if context > last.cell.model.max_context or context > FARTHEST * found.longest:
                continue
            if arc := fits.arc_hours(found, last, context, steps):
                reach = f", x{arc.reach:.2g} beyond what was measured" if arc.reach > 1 else ""
                span = hours(arc.hours_low, arc.hours_mid, arc.hours_high)
                parts.append(f"up to {context} tokens {span} h ({100 * arc.coverage:.0f} % fit{reach})")
        if parts:
            said.append(f"{last.cell.model.name} {last.cell.label}, projected over ARC's lengths: {'; '.join(parts)}.")
    return said


def _failures(rows: Sequence[Measurement]) -> list[str]:
    said = [(name_of(row), f"{row.status.replace('_', ' ')}: {row.reason}.") for row in rows if not row.ok]
    return merged(said)


def _kernels(rows: Sequence[Measurement]) -> list[str]:
    """Which kernels ran: a line for all rows, or one for each choice."""
    of = [(f"{row.cell.model.name} {row.cell.label}", row.kernels) for row in rows if row.kernels]
    same = len({kernels for _, kernels in of}) == 1
    return [
        f"Kernels: {kernels}{'' if same else f' ({names})'}; the fastest here unless --kernels chose."
        for names, kernels in _by_text(of)
    ]


def _foreseen(rows: Sequence[Measurement]) -> list[str]:
    """How far the predictions made before the cells ran were off."""
    pairs = [(r.predicted_micro_s / median(r.micro_s), r.predicted_peak_bytes / r.peak_bytes)
             for r in rows if r.ok and r.predicted_micro_s and r.predicted_peak_bytes and r.peak_bytes]  # fmt: skip
    if not pairs:
        return []
    off = [sorted(abs(each - 1) for each in column) for column in zip(*pairs, strict=True)]
    said = [f"{100 * median(each):.0f} % (at most {100 * each[-1]:.0f} %)" for each in off]
    cells = "cell was" if len(pairs) == 1 else "cells were"
    return [
        f"Predicted before {len(pairs)} {cells} measured: micro-steps off by {said[0]} in the median, memory {said[1]}."
    ]


def _warnings(rows: Sequence[Measurement]) -> list[str]:
    return merged([(name_of(row), warning) for row in rows if row.ok for warning in warnings(row)])


def merged(said: Sequence[tuple[str, str]]) -> list[str]:
    """Each text once, after the names of all that it was said of."""
    return [f"{names}: {text}" for names, text in _by_text(said)]


def _by_text(said: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(names, text) of each text, the names being those that it was said of."""
    names: dict[str, list[str]] = {}
    for name, text in said:
        names.setdefault(text, []).append(name)
    return [(", ".join(dict.fromkeys(of)), text) for text, of in names.items()]


def name_of(row: Measurement) -> str:
    return f"{row.cell.model.name} {row.cell.label} {row.cell.context}"


def _emulated(rows: Sequence[Measurement]) -> list[str]:
    """For each emulated dtype in the table: how slow it is here, and what is native."""
    seen = {row.cell.compute_dtype: row.rate for row in rows if row.rate and not row.rate.native}
    instead = sorted({row.cell.precision for row in rows if row.cell.why.startswith("native here")})
    use = f"; {' and '.join(instead)} is native and measured beside it" if instead else ""
    quantized = {row.cell.precision: row.cell.compute_dtype for row in rows if row.cell.precision in ("int8", "int4")}
    return [
        f"* {dtype} is emulated on this device: backward products run at {number(rate.backward / 1e9)} GFLOP/s{use}."
        for dtype, rate in sorted(seen.items())
    ] + [f"{precision} computes in {dtype}, the native dtype here." for precision, dtype in sorted(quantized.items())]


def _ordered(rows: Sequence[Measurement]) -> list[tuple[Measurement, bool]]:
    """The rows with whether each is the first of its model."""
    out, before = [], None
    for row in rows:
        out.append((row, row.cell.model.name != before))
        before = row.cell.model.name
    return out
