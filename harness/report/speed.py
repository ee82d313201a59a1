"""The tables of speed and memory: in 80 columns, plain text without a terminal."""

from collections.abc import Sequence
from statistics import fmean, median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis import projection, token_curve
from harness.analysis.stability import warnings
from harness.analysis.verdict import TRAINING_SHARE, verdict
from harness.arc.lengths import PUBLISHED
from harness.catalog.kernels import AUTO
from harness.catalog.precisions import FUSED_4BIT_ROWS, PRECISIONS, lower_bound
from harness.records.cell import TARGETS
from harness.records.measurement import CROWDED, Measurement
from harness.report.format import cell_name, gib, hours, millions, number, thousands
from harness.report.style import folded, plain_table, verdict_text

FARTHEST = 8  # times the longest measured context: beyond it nothing is projected


def summary(rows: Sequence[Measurement], budget_hours: float, steps: int, out: Console) -> None:
    """Prints the table of hours and memory, that of throughput and hours over ARC's lengths, and notes."""
    if not rows:
        out.print("The record is empty.")
        return
    out.print()
    out.print(_main_table(rows, budget_hours, steps))
    out.print()
    out.print(Text(definition(rows, steps, budget_hours)))
    if any(row.ok for row in rows):
        out.print()
        out.print(_details(rows, steps))
        out.print()
        out.print(Text(_details_note(steps)))
    out.print()
    # Notes: failures first, then what the marks mean, then how far the numbers can be trusted.
    for line in (
        *_failures(rows),
        *_emulated(rows),
        *_kernels(rows),
        *_adapted(rows),
        *curves(rows, steps),
        *_prediction_errors(rows),
        *_warnings(rows),
    ):
        out.print(Text(f"- {line}"))


def definition(rows: Sequence[Measurement], steps: int, budget_hours: float) -> str:
    """Explains the main table's columns, and those marks that are in it."""
    recipe = rows[0].cell.recipe
    random = any(row.cell.weights == "random" for row in rows)
    real = any(row.cell.weights != "random" for row in rows)
    weights = "Random weights: speed and memory are real, accuracy is not measured." if random else ""
    if random and real:
        weights = "Some models have random weights: their speed and memory are real."
    if any(row.cell.weights == "random" and _lower_bound(row) for row in rows):
        weights += " But int8's speed on a card depends on the values: its seconds are a lower bound."
    marks = "".join(row.cell.recipe.mark for row in rows)
    # Only the marks that stand in the table.
    legend = "ref: transformers' and PEFT's plain step. " if "/ref" in marks else ""
    legend += "b4: micro-batches of 4 sequences, and so on. " if "/b" in marks else ""
    chosen = any(row.cell.recipe.kernels != AUTO for row in rows)
    legend += "plain and the like: kernels set by --kernels. " if chosen else ""
    legend += "ckpt: activations recomputed in the backward (ckpt-mlp: gate and up). " if "/ckpt" in marks else ""
    legend += "linear: every linear layer adapted. " if "/linear" in marks else ""
    named = any(row.cell.recipe.lora_targets not in TARGETS for row in rows)
    legend += "q_proj+2 and the like: the first of --lora-targets, and how many more. " if named else ""
    return (
        f"Measured on {', '.join(sorted({row.cell.device_name for row in rows}))}. A step is "
        f"{recipe.sequences_per_step} sequences of seq_len tokens, forward and backward, and one optimiser update. "
        f"train h: load, warm-up and {steps} such steps, with a 95 % interval; fits: its high end is within "
        f"{100 * TRAINING_SHARE:.0f} % of {budget_hours:g} h, for the answers need room; tight: within all of it. "
        f"{legend}{weights}"
    )


def _main_table(rows: Sequence[Measurement], budget_hours: float, steps: int) -> Table:
    table = plain_table(
        "<model|params\n(M)|max\nctx\n(k)|<prec|seq\nlen|10\nsteps\n(min)|steps\n/min|train\nh (95 %)|peak\nGiB|"
        "<verdict"
    )
    for row, first in _ordered(rows):
        cell, word = row.cell, verdict(row, budget_hours, steps)
        # The counted parameters if the model was built, else models.yaml's.
        params = row.params / 1e6 if row.params else cell.model.params_m
        model = [Text(cell.model.name), millions(params), thousands(cell.model.max_context)]
        if row.ok:
            p = projection.project(row, steps)
            speed = [number(p.step_s / 6), number(60 / p.step_s), hours(p.hours_low, p.hours_mid, p.hours_high)]
        else:
            speed = ["-", "-", "-"]
        emulated = "*" if row.rate and not row.rate.native else ""
        table.add_row(
            *(model if first else ["", "", ""]),
            folded(cell.label + emulated),
            str(cell.context),
            *speed,
            gib(row.peak_bytes),
            verdict_text(word),
        )
    return table


def _details(rows: Sequence[Measurement], steps: int) -> Table:
    table = plain_table(
        "<model|<prec|seq\nlen|micro\nsteps|s each\n± %|tokens\n/s|TFLOP\n/s|of\npeak|free\nGiB|ARC\nh|ARC\nfits"
    )
    # One curve per model and precision, through all contexts that were measured.
    fitted = token_curve.fit_curves(rows)
    for row, first in _ordered([row for row in rows if row.ok]):
        fit = fitted[token_curve.curve_key(row)]
        arc = token_curve.arc_hours(fit, row, row.cell.context, steps) if fit else None
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
            f"{100 * PUBLISHED.coverage(row.cell.context):.0f}%",
        )
    return table


def _details_note(steps: int) -> str:
    return (
        "of peak: counted FLOPs of the matrix products over the probed rate of the compute dtype. free: the device's "
        f"memory less the peak. ARC h: load and {steps} steps where lengths are ARC's own, those over seq_len dropped; "
        "ARC fits: how many are left (ARC-AGI-1 evaluation, leave-one-out)."
    )


def curves(rows: Sequence[Measurement], steps: int) -> list[str]:
    """One line per model and precision: hours over ARC's own lengths at the contexts one would train at."""
    lines = []
    for group in token_curve.by_curve(rows).values():
        fit, ok = token_curve.fit_token_curve(group), [row for row in group if row.ok]
        # Nobody would train in an emulated dtype; the native one has a line of its own.
        if not fit or (ok[0].rate and not ok[0].rate.native):
            continue
        row = max(ok, key=lambda r: r.cell.context)
        parts, label = [], f"{row.cell.model.name} {row.cell.label}"
        for context in (2048, 4096, 8192):
            if context > row.cell.model.max_context or context > FARTHEST * fit.longest:
                continue
            if token_curve.kernel_changes(fit, row, context):
                lines.append(
                    f"{label}: not projected beyond {FUSED_4BIT_ROWS // row.cell.recipe.micro_batch} tokens, where "
                    "4-bit products run in another kernel; measure a longer context with --contexts."
                )
                break
            if arc := token_curve.arc_hours(fit, row, context, steps):
                reach = f", x{arc.reach:.2g} beyond what was measured" if arc.reach > 1 else ""
                span = hours(arc.hours_low, arc.hours_mid, arc.hours_high)
                parts.append(f"up to {context} tokens {span} h ({100 * arc.coverage:.0f} % fit{reach})")
        if parts:
            lines.append(f"{label}, projected over ARC's lengths: {'; '.join(parts)}.")
    return lines


def _failures(rows: Sequence[Measurement]) -> list[str]:
    return merged(
        [(cell_name(row.cell), f"{row.status.replace('_', ' ')}: {row.reason}.") for row in rows if not row.ok]
    )


def _adapted(rows: Sequence[Measurement]) -> list[str]:
    """Which modules had an adapter: one line for all rows, or one per choice; then what else is to be known."""
    named = [(row.cell.model.name, row.adapted) for row in rows if row.adapted]
    same = len({adapted for _, adapted in named}) == 1
    lines = [f"Adapted: {adapted}{'' if same else f' ({names})'}." for names, adapted in _by_text(named)]
    # A note on how a model was made is shown once; one on how a cell was timed names the cell.
    notes = [(row, note) for row in rows for note in row.notes]
    return lines + merged(
        [(cell_name(row.cell) if note == CROWDED else row.cell.model.name, note) for row, note in notes]
    )


def _kernels(rows: Sequence[Measurement]) -> list[str]:
    """Which kernels ran: one line for all rows, or one per choice."""
    named = [(f"{row.cell.model.name} {row.cell.label}", row.kernels) for row in rows if row.kernels]
    same = len({kernels for _, kernels in named}) == 1
    return [
        f"Kernels: {kernels}{'' if same else f' ({names})'}; the fastest on this device unless --kernels sets them."
        for names, kernels in _by_text(named)
    ]


def _prediction_errors(rows: Sequence[Measurement]) -> list[str]:
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


def _warnings(rows: Sequence[Measurement]) -> list[str]:
    return merged([(cell_name(row.cell), warning) for row in rows if row.ok for warning in warnings(row)])


def merged(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Lines "names: text" of (name, text) pairs: a text that several names share stands once."""
    return [f"{names}: {text}" for names, text in _by_text(notes)]


def _by_text(notes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(names, text) of (name, text) pairs: per different text, the names that have it, joined by commas."""
    by_text: dict[str, list[str]] = {}
    for name, text in notes:
        by_text.setdefault(text, []).append(name)
    return [(", ".join(dict.fromkeys(names)), text) for text, names in by_text.items()]


def _lower_bound(row: Measurement) -> str:
    precision = PRECISIONS.get(row.cell.precision)
    return lower_bound(precision, row.cell.device.partition(":")[0]) if precision else ""


def _emulated(rows: Sequence[Measurement]) -> list[str]:
    """One line per emulated dtype: how slow it is here, and what is native; and what quantised weights compute in."""
    emulated = {row.cell.compute_dtype: row.rate for row in rows if row.rate and not row.rate.native}
    instead = sorted({row.cell.precision for row in rows if row.cell.why.startswith("native here")})
    use = f"; {' and '.join(instead)} is native and measured too" if instead else ""
    quantized = {row.cell.precision: row.cell.compute_dtype for row in rows if row.cell.precision in ("int8", "int4")}
    return [
        f"* {dtype} is emulated on this device: backward matmuls reach {number(rate.backward / 1e9)} GFLOP/s{use}."
        for dtype, rate in sorted(emulated.items())
    ] + [f"{precision} computes in {dtype}, the native dtype here." for precision, dtype in sorted(quantized.items())]


def _ordered(rows: Sequence[Measurement]) -> list[tuple[Measurement, bool]]:
    """(row, whether it is the first of its model) per row; only the first one's name is printed."""
    marked, previous = [], None
    for row in rows:
        marked.append((row, row.cell.model.name != previous))
        previous = row.cell.model.name
    return marked
