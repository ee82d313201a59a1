"""Predictions on the terminal and as flat rows, always labelled as predictions."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.files import replace_atomically
from harness.predict.prediction import Prediction
from harness.predict.query import Unpredictable
from harness.records.cell import Goal
from harness.report.format import GIB, gib, hours, number
from harness.report.formats import Format
from harness.report.style import folded, plain_table

_COLOURS = {"fits": "green", "fits?": "yellow", "unsure": "yellow", "too slow": "red", "too big": "red"}
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


def table(found: Sequence[Prediction | Unpredictable], goal: Goal, out: Console) -> None:
    """One row a cell, what it means, and the breakdown of memory where there is one cell alone."""
    shown = plain_table(
        ("model", "left"), ("card", "left"), ("prec", "left"), ("seq\nlen", "right"), ("10\nsteps\n(min)", "right"),
        (f"{goal.steps} steps\nh (95 %)", "right"), ("peak\nGiB", "right"), ("of\ncard", "right"), ("verdict", "left"),
    )  # fmt: skip
    for each in found:
        name = Text(each.spec.name)
        if isinstance(each, Unpredictable):
            shown.add_row(name, card(each), each.precision.name, str(each.context or "-"), *"----", Text("no answer"))
            continue
        step_s = each.step_s if each.arc_step_s is None else each.arc_step_s
        word, share = each.verdict(goal), each.peak_bytes / each.accelerator.memory_bytes
        mark = "" if each.native else "*"
        shown.add_row(
            name, card(each), folded(each.precision.name + each.recipe.mark + mark), str(each.context),
            number(step_s / 6),
            hours(*each.hours(goal)), gib(round(each.peak_bytes)), f"{100 * share:.0f}%",
            Text(word, style=_COLOURS.get(word, "")),
        )  # fmt: skip
    out.print()
    out.print(shown)
    out.print()
    out.print(Text(_definition(goal)))
    out.print()
    ok = [each for each in found if isinstance(each, Prediction)]
    for line in dict.fromkeys(line for each in found for line in _notes(each)):
        out.print(Text(f"- {line}"))
    for why in dict.fromkeys(why for each in ok for why in each.caveats):
        of = [each for each in ok if why in each.caveats]
        names = dict.fromkeys(f"{each.spec.name} {each.precision.name} {each.context}" for each in of)
        whose = "" if len(of) == len(ok) else f"{', '.join(names)}: " if len(names) < 5 else f"{len(of)} cells: "
        out.print(Text(f"- {whose}{why}; the interval is wider."))
    if len(ok) == 1:
        out.print()
        breakdown(ok[0], out)


def card(each: Prediction | Unpredictable) -> str:
    name = each.accelerator.name if each.accelerator.kind != "cpu" else "cpu"
    if isinstance(each, Prediction) and (count := max(each.recipe.data_parallel, each.recipe.layer_split)) > 1:
        return f"{count}x{name}"
    return name


def _definition(goal: Goal) -> str:
    return (
        "PREDICTED, not measured. A step is one optimiser step. Hours: load, training over ARC's lengths up to seq_len "
        f"and the answers of {goal.test_tasks} tasks, with a 95 % interval; fits: its high end is within "
        f"{goal.budget_hours:g} h and its memory within the card's; fits?: it may just not hold it. *: emulated."
    )


def _notes(each: Prediction | Unpredictable) -> list[str]:
    if isinstance(each, Unpredictable):
        return [f"{each.spec.name} {each.precision.name} on {each.accelerator.name}: {each.reason}."]
    said = [f"{card(each)}: speed by {each.source}."]
    if each.arc_step_s is None:
        said.append(f"None of ARC's sequences fits {each.context} tokens: hours are for whole contexts.")
    return said


def breakdown(each: Prediction, out: Console) -> None:
    """What fills the memory at the moment when most is held."""
    shown = plain_table((f"{each.spec.name} {each.precision.name} at {each.context} tokens", "left"), ("GiB", "right"))
    for name, words in _PARTS.items():
        if count := asdict(each.trace.memory)[name]:
            shown.add_row(words, f"{count / GIB:.2f}")
    rest = "context and allocator" if each.accelerator.kind == "cuda" else "libraries and allocator"
    shown.add_row(rest, f"{each.overhead_bytes / GIB:.2f}")
    if each.recipe.layer_split > 1:
        shown.add_row(f"the fuller of {each.recipe.layer_split} cards", f"{each.peak_bytes / GIB:.2f}")
    else:
        shown.add_row("peak", f"{each.peak_bytes / GIB:.2f}")
    out.print(shown)


COLUMNS = (
    *("origin", "model", "precision", "compute_dtype", "native", "context", "card", "method", "micro_batch"),
    *("micro_step_s", "ten_steps_min", "hours_low", "hours_mid", "hours_high", "steps", "budget_hours", "verdict"),
    *("peak_gib", "card_gib", *(f"{name}_gib" for name in _PARTS), "overhead_gib", "far", "source"),
)


def flat(predictions: Sequence[Prediction | Unpredictable], goal: Goal) -> list[dict[str, Any]]:
    """One dict of COLUMNS per prediction; what could not be predicted is left out."""
    return [_flat(each, goal) for each in predictions if isinstance(each, Prediction)]


def _flat(prediction: Prediction, goal: Goal) -> dict[str, Any]:
    low, mid, high = prediction.hours(goal)
    step_s = prediction.step_s if prediction.arc_step_s is None else prediction.arc_step_s
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
        "ten_steps_min": step_s / 6,
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
        "source": prediction.source,
    }


def write_csv(predictions: Sequence[Prediction | Unpredictable], goal: Goal, path: Path) -> None:
    """One row per prediction in COLUMNS, numbers to all figures. Replaces `path` whole or not at all.

    Raises UserError where it cannot be written.
    """
    import pandas

    # As objects, so that integers stay such and floats are written in their shortest exact form.
    data = pandas.DataFrame(flat(predictions, goal), columns=list(COLUMNS), dtype=object)
    replace_atomically(path, data.to_csv(index=False, lineterminator="\r\n"))


FORMATS = {"csv": Format("predictions.csv", write_csv)}
