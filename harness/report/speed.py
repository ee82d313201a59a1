"""The tables of speed and memory: in 80 columns, plain text without a terminal."""

from collections.abc import Sequence
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis import projection, token_curve
from harness.analysis.candidates import FARTHEST
from harness.analysis.verdict import verdict
from harness.analysis.weight_marks import mark_behind, weight_marks
from harness.arc.lengths import PUBLISHED
from harness.catalog.kernels import AUTO
from harness.catalog.precisions import FUSED_4BIT_ROWS, PRECISIONS, lower_bound
from harness.digits import fixed, number, rounded
from harness.records.cell import TARGETS, Goal
from harness.records.measurement import Measurement
from harness.report import all_cards, run_notes, speed_notes
from harness.report.format import cell_name, gib, hours, millions, thousands
from harness.report.run_notes import Runs
from harness.report.style import folded, plain_table, verdict_text


def summary(rows: Sequence[Measurement], runs: Runs, goal: Goal, out: Console, most_notes: int | None = None) -> None:
    """Prints the table of hours and memory, that of throughput and hours over ARC's lengths, and notes: all of them, or
    at most so many of those that ask for something. `runs` are what the ok rows are judged by."""
    if not rows:
        out.print("The record is empty.")
        return
    out.print()
    out.print(_main_table(rows, runs, goal))
    out.print()
    out.print(Text(definition(rows, runs, goal)))
    if any(row.ok for row in rows):
        out.print()
        out.print(_details(rows, goal.steps))
        out.print()
        out.print(Text(_details_note(goal.steps)))
    out.print()
    asking, telling = notes(rows, runs, goal)
    shown = [*asking, *telling] if most_notes is None else asking[:most_notes]
    for line in shown:
        out.print(Text(f"- {line}"))
    if more := len(asking) + len(telling) - len(shown):
        out.print(Text(f"- {more} more note{'s' if more > 1 else ''}: harness report --notes"))


def notes(rows: Sequence[Measurement], runs: Runs, goal: Goal) -> tuple[list[str], list[str]]:
    """The notes that ask for something (or without which a number would be misread), and those that only tell."""
    # Failures first, then what the marks mean, then how far the numbers can be trusted.
    marks = weight_marks(rows)
    named = [(cell_name(row.cell, mark_behind(row, marks)), runs[row.key]) for row in rows if row.key in runs]
    projected, unprojected = curves(rows, goal.steps)
    asking = [
        *speed_notes.merged(run_notes.of_other_runs(named, goal)),
        *speed_notes.failures(rows),
        *speed_notes.emulated(rows),
        *speed_notes.crowded(rows),
        *unprojected,
        *all_cards.lines(rows, goal.steps),
        *speed_notes.warnings(rows),
    ]
    telling = [
        *run_notes.of_uncounted(named, goal),
        *speed_notes.quantized(rows),
        *speed_notes.kernels(rows),
        *speed_notes.adapted(rows),
        *projected,
        *speed_notes.prediction_errors(rows),
    ]
    return asking, telling


def definition(rows: Sequence[Measurement], runs: Runs, goal: Goal) -> str:
    """Explains the main table's columns, and those marks that are in it."""
    recipe = rows[0].cell.recipe
    random = any(row.cell.weights == "random" for row in rows)
    real = any(row.cell.weights != "random" for row in rows)
    which = "/0f3a99c1 and the like: which weights, by their digest. " if weight_marks(rows) else ""
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
        f"train h: load, warm-up and {goal.steps} such steps, with a 95 % interval. "
        f"{run_notes.definition([runs[row.key] for row in rows if row.key in runs], goal)} {legend}{which}{weights}"
    )


def _main_table(rows: Sequence[Measurement], runs: Runs, goal: Goal) -> Table:
    table = plain_table(
        "<model|par.\n(M)|<prec|seq\nlen|10\nsteps\n(min)|steps\n/min|train\nh (95 %)|all\nh|peak\nGiB|<verdict"
    )
    marks = weight_marks(rows)
    for row, first in _ordered(rows):
        cell, run = row.cell, runs.get(row.key)
        word = verdict(row, run, goal.budget_hours)
        # The counted parameters if the model was built, else models.yaml's.
        params = row.params / 1e6 if row.params else cell.model.params_m
        model = [Text(cell.model.name), millions(params)]
        if row.ok:
            p = projection.project(row, goal.steps)
            speed = [number(p.step_s / 6), number(60 / p.step_s), hours(p.hours_low, p.hours_mid, p.hours_high)]
        else:
            speed = ["-", "-", "-"]
        emulated = "*" if row.rate and not row.rate.native else ""
        table.add_row(
            *(model if first else ["", ""]),
            folded(cell.label + emulated + mark_behind(row, marks)),
            str(cell.context),
            *speed,
            number(run.high, 2) if run else "-",
            gib(row.peak_bytes),
            verdict_text(word),
        )
    return table


def _details(rows: Sequence[Measurement], steps: int) -> Table:
    table = plain_table(
        "<model|max\nctx\n(k)|<prec|seq\nlen|micro\nsteps|s each\n± %|tokens\n/s|TFLOP\n/s|"
        "of\npeak|free\nGiB|ARC\nh|ARC\nfits"
    )
    # One curve per model and precision, through all contexts that were measured.
    fitted, marks = token_curve.fit_curves(rows), weight_marks(rows)
    for row, first in _ordered([row for row in rows if row.ok]):
        fit = fitted[token_curve.curve_key(row)]
        arc = token_curve.arc_hours(fit, row, row.cell.context, steps) if fit else None
        peak = projection.share_of_peak(row)
        table.add_row(
            Text(row.cell.model.name) if first else "",
            thousands(row.cell.model.max_context) if first else "",
            folded(row.cell.label + mark_behind(row, marks)),
            str(row.cell.context),
            str(len(row.micro_s)),
            f"{number(fmean(row.micro_s))} {fixed(100 * projection.relative_half_width(row))}",
            number(projection.tokens_per_second(row)),
            number((projection.achieved_flops(row) or 0) / 1e12 or None, 2),
            f"{fixed(100 * peak)}%" if peak else "-",
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


def curves(rows: Sequence[Measurement], steps: int) -> tuple[list[str], list[str]]:
    """One line per model and precision: hours over ARC's own lengths at the contexts one would train at; and one per
    model and precision whose curve does not reach them."""
    lines, unreached, marks = [], [], weight_marks(rows)
    for group in token_curve.by_curve(rows).values():
        fit, ok = token_curve.fit_token_curve(group), [row for row in group if row.ok]
        # Nobody would train in an emulated dtype; the native one has a line of its own.
        if not fit or (ok[0].rate and not ok[0].rate.native):
            continue
        row = max(ok, key=lambda r: r.cell.context)
        parts, label = [], f"{row.cell.model.name} {row.cell.label}{mark_behind(row, marks)}"
        for context in (2048, 4096, 8192):
            if context > row.cell.model.max_context or context > FARTHEST * fit.longest:
                continue
            if token_curve.kernel_changes(fit, row, context):
                unreached.append(
                    f"{label}: not projected beyond {FUSED_4BIT_ROWS // row.cell.recipe.micro_batch} tokens, where "
                    "4-bit products run in another kernel; measure a longer context with --contexts."
                )
                break
            if arc := token_curve.arc_hours(fit, row, context, steps):
                reach = f", x{rounded(arc.reach, 2)} beyond what was measured" if arc.reach > 1 else ""
                span = hours(arc.hours_low, arc.hours_mid, arc.hours_high)
                parts.append(f"up to {context} tokens {span} h ({100 * arc.coverage:.0f} % fit{reach})")
        if parts:
            lines.append(f"{label}, projected over ARC's lengths: {'; '.join(parts)}.")
    return lines, unreached


def _lower_bound(row: Measurement) -> str:
    precision = PRECISIONS.get(row.cell.precision)
    return lower_bound(precision, row.cell.device.partition(":")[0]) if precision else ""


def _ordered(rows: Sequence[Measurement]) -> list[tuple[Measurement, bool]]:
    """(row, whether it is the first of its model) per row; only the first one's name is printed."""
    marked, previous = [], None
    for row in rows:
        marked.append((row, row.cell.model.name != previous))
        previous = row.cell.model.name
    return marked
