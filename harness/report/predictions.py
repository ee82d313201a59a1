"""Predictions on the terminal and as flat rows, always labelled as predictions."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.arc.lengths import PUBLISHED
from harness.catalog.optimizers import MASTERS
from harness.catalog.precisions import lower_bound
from harness.digits import fixed, number
from harness.files import write_output
from harness.predict.prediction import Prediction
from harness.predict.query import Unpredictable
from harness.records.cell import FULL, Goal
from harness.report.format import GIB, gib, hours, safe_cell
from harness.report.formats import Format
from harness.report.style import folded, plain_table, verdict_text

# The parts of a trace's memory, by the names of its fields.
_PARTS = {
    "weights": "weights",
    "constants": "quantisation constants",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "activations": "activations",
    "logits": "logits",
    "temporaries": "of the backward",
}


def predictions_table(predictions: Sequence[Prediction | Unpredictable], goal: Goal, out: Console) -> None:
    """Prints one row per cell, what the columns mean, caveats, and for a single cell what fills its memory."""
    shown = plain_table("<model|<card|<prec|seq\nlen|10\nsteps\n(min)|all\nh (95 %)|peak\nGiB|of\ncard|<verdict")
    # A cell without a prediction keeps its row; the reason follows as a note.
    for cell in predictions:
        name = Text(cell.spec.name)
        if isinstance(cell, Unpredictable):
            shown.add_row(name, card(cell), cell.precision.name, str(cell.context or "-"), *"----", Text("no answer"))
            continue
        word, share = cell.verdict(goal), cell.peak_bytes / cell.accelerator.memory_bytes
        mark = "" if cell.native else "*"
        shown.add_row(
            name, card(cell), folded(cell.precision.name + cell.recipe.mark + mark), str(cell.context),
            number(cell.step_s / 6),
            hours(*cell.hours(goal)), gib(round(cell.peak_bytes)), f"{fixed(100 * share)}%",
            verdict_text(word),
        )  # fmt: skip
    out.print()
    out.print(shown)
    out.print()
    out.print(Text(_definition(goal)))
    out.print()
    # Notes that several cells share stand once.
    predicted = [cell for cell in predictions if isinstance(cell, Prediction)]
    for line in dict.fromkeys(line for cell in predictions for line in notes_of(cell)):
        out.print(Text(f"- {line}"))
    for line in _caveats(predicted):
        out.print(Text(f"- {line}"))
    if len(predicted) == 1:
        out.print()
        breakdown(predicted[0], out)


def card(cell: Prediction | Unpredictable) -> str:
    """The accelerator's name, with their number where there are several: "2xt4"."""
    name = cell.accelerator.name if cell.accelerator.kind != "cpu" else "cpu"
    if isinstance(cell, Prediction) and (count := max(cell.recipe.data_parallel, cell.recipe.layer_split)) > 1:
        return f"{count}x{name}"
    return name


def _caveats(predicted: Sequence[Prediction]) -> list[str]:
    """Each caveat once, after the names of its cells; no names where it holds for all, a count where they are many."""
    lines = []
    for caveat in dict.fromkeys(caveat for cell in predicted for caveat in cell.caveats):
        cells = [cell for cell in predicted if caveat in cell.caveats]
        names = dict.fromkeys(f"{cell.spec.name} {cell.precision.name} {cell.context}" for cell in cells)
        whose = f"{', '.join(names)}: " if len(names) < 5 else f"{len(cells)} cells: "
        lines.append(f"{'' if len(cells) == len(predicted) else whose}{caveat}; the interval is wider.")
    return lines


def _definition(goal: Goal) -> str:
    return (
        "PREDICTED, not measured. 10 steps: optimiser steps of full contexts. all h: load, "
        f"{goal.steps} steps over ARC's lengths up to seq_len and the answers of {goal.test_tasks} tasks, with a 95 % "
        f"interval; fits: its high end is within the whole of {goal.budget_hours:.7g} h and its memory within "
        "the card's; fits?, too big?: the interval of its memory spans the card's; unsure: that of its hours the "
        "budget. *: emulated."
    )


def notes_of(cell: Prediction | Unpredictable) -> list[str]:
    """What the prediction rests on and what it leaves out; why there is none."""
    if isinstance(cell, Unpredictable):
        return [f"{cell.spec.name} {cell.precision.name} on {cell.accelerator.name}: {cell.reason}."]
    notes = [f"{card(cell)}: {cell.evidence}: {cell.source}."]
    if cell.precision.quantized and cell.compute_dtype == "fp32" != cell.accelerator.native_half:
        notes.append(
            f"{cell.precision.name} computes in fp32 here, bitsandbytes' default where nobody sets it; --compute "
            f"{cell.accelerator.native_half} is the card's own."
        )
    if cell.recipe.method == FULL and cell.recipe.optimizer == MASTERS:
        notes.append("Full fine-tuning with fp32 copies of the weights and fp32 states.")
    elif cell.recipe.method == FULL:
        notes.append(
            f"Full fine-tuning with states in the weights' dtype; --optimizer {MASTERS} has fp32 copies and states."
        )
    # A trace has no values, whatever the weights.
    if bound := lower_bound(cell.precision, cell.accelerator.kind):
        notes.append(f"{bound}; nor is each layer's wait for them in it.")
    if cell.lengths is not PUBLISHED:
        lengths, share = cell.lengths, 100 * cell.lengths.coverage(cell.context)
        notes.append(
            f"ARC's lengths are those of {lengths.name}: {lengths.count} sequences of {lengths.mean:.0f} tokens in the "
            f"mean, {share:.0f} % within {cell.context}. The answers are of ARC-AGI-1's mean lengths all the same."
        )
    if cell.arc_step_s is None:
        notes.append(f"None of ARC's sequences fits {cell.context} tokens: hours are for whole contexts.")
    return notes


def breakdown(prediction: Prediction, out: Console) -> None:
    """Prints what fills the memory of one card at the moment when most is held."""
    shown = plain_table(f"<{prediction.spec.name} {prediction.precision.name} at {prediction.context} tokens|GiB")
    # Parts that hold nothing are left out.
    for name, label in _PARTS.items():
        if count := asdict(prediction.trace.memory)[name]:
            shown.add_row(label, f"{count / GIB:.2f}")
    rest = "context and allocator" if prediction.accelerator.kind == "cuda" else "libraries and allocator"
    shown.add_row(rest, f"{prediction.overhead_bytes / GIB:.2f}")
    if prediction.recipe.layer_split > 1:
        shown.add_row(f"the fuller of {prediction.recipe.layer_split} cards", f"{prediction.peak_bytes / GIB:.2f}")
    else:
        shown.add_row("peak", f"{prediction.peak_bytes / GIB:.2f}")
    out.print(shown)


COLUMNS = (
    *("origin", "model", "precision", "compute_dtype", "native", "context", "card", "method", "micro_batch"),
    *("micro_step_s", "ten_steps_min", "hours_low", "hours_mid", "hours_high", "steps", "budget_hours", "verdict"),
    *("peak_gib", "card_gib", *(f"{name}_gib" for name in _PARTS), "overhead_gib", "far", "evidence"),
    *("source", "tokens_per_step", "params", "trainable_params", "update_s", "micro_step_low_s", "micro_step_high_s"),
    *("peak_low_gib", "peak_high_gib", "arc_ten_steps_min"),
)


def flat(predictions: Sequence[Prediction | Unpredictable], goal: Goal) -> list[dict[str, Any]]:
    """One dict of COLUMNS per prediction, texts made safe for a spreadsheet; what has no prediction is left out."""
    rows = [_flat(cell, goal) for cell in predictions if isinstance(cell, Prediction)]
    return [{k: safe_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def _flat(prediction: Prediction, goal: Goal) -> dict[str, Any]:
    low, mid, high = prediction.hours(goal)
    memory = asdict(prediction.trace.memory)
    return {
        "origin": "predicted",
        "model": prediction.spec.name,
        "precision": prediction.precision.name,
        "compute_dtype": prediction.compute_dtype,
        "native": prediction.native,
        "context": prediction.context,
        "card": card(prediction),
        "method": prediction.recipe.method,
        "micro_batch": prediction.recipe.micro_batch,
        "micro_step_s": prediction.micro_s,
        "ten_steps_min": prediction.step_s / 6,
        "hours_low": low,
        "hours_mid": mid,
        "hours_high": high,
        "steps": goal.steps,
        "budget_hours": goal.budget_hours,
        "verdict": prediction.verdict(goal),
        "peak_gib": prediction.peak_bytes / GIB,
        "card_gib": prediction.accelerator.memory_bytes / GIB,
        **{f"{name}_gib": memory[name] / GIB for name in _PARTS},
        "overhead_gib": prediction.overhead_bytes / GIB,
        "far": "; ".join(prediction.caveats),
        "evidence": prediction.evidence,
        "source": prediction.source,
        "tokens_per_step": prediction.context * prediction.recipe.sequences_per_step,
        "params": prediction.trace.params,
        "trainable_params": prediction.trace.trainable,
        "update_s": prediction.update_s,
        "micro_step_low_s": prediction.micro_s / prediction.seconds_factor,
        "micro_step_high_s": prediction.micro_s * prediction.seconds_factor,
        "peak_low_gib": prediction.peak_bytes / prediction.memory_factor / GIB,
        "peak_high_gib": prediction.peak_bytes * prediction.memory_factor / GIB,
        "arc_ten_steps_min": None if prediction.arc_step_s is None else prediction.arc_step_s / 6,
    }


def write_predictions(predictions: Sequence[Prediction | Unpredictable], goal: Goal, path: Path) -> None:
    """One row per prediction in COLUMNS, numbers to all figures. Replaces `path` whole or not at all.

    Raises UserError where it cannot be written.
    """
    import pandas

    # As objects, so that integers stay such and floats are written in their shortest exact form.
    data = pandas.DataFrame(flat(predictions, goal), columns=list(COLUMNS), dtype=object)
    write_output(path, data.to_csv(index=False, lineterminator="\r\n"))


FORMATS = {"csv": Format("predictions.csv", write_predictions)}
