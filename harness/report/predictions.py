"""Predictions on the terminal and as CSV, always said to be such."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.predict.prediction import Prediction
from harness.predict.query import Unpredictable
from harness.records.cell import Goal
from harness.report.format import GIB, gib, hours, number
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
        word, share = each.verdict(goal), each.peak_bytes / each.on.memory_bytes
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
    for why in dict.fromkeys(why for each in ok for why in each.far):
        of = [each for each in ok if why in each.far]
        names = dict.fromkeys(f"{each.spec.name} {each.precision.name} {each.context}" for each in of)
        whose = "" if len(of) == len(ok) else f"{', '.join(names)}: " if len(names) < 5 else f"{len(of)} cells: "
        out.print(Text(f"- {whose}{why}; the interval is wider."))
    if len(ok) == 1:
        out.print()
        breakdown(ok[0], out)


def card(each: Prediction | Unpredictable) -> str:
    name = each.on.name if each.on.kind != "cpu" else "cpu"
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
        return [f"{each.spec.name} {each.precision.name} on {each.on.name}: {each.reason}."]
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
    rest = "context and allocator" if each.on.kind == "cuda" else "libraries and allocator"
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


def to_csv(found: Sequence[Prediction | Unpredictable], goal: Goal, path: Path) -> None:
    """A row a prediction; whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for each in found:
        if isinstance(each, Unpredictable):
            continue
        low, mid, high = each.hours(goal)
        step_s = each.step_s if each.arc_step_s is None else each.arc_step_s
        memory = asdict(each.trace.memory)
        writer.writerow((
            "predicted", each.spec.name, each.precision.name, each.compute, each.native, each.context, card(each),
            each.recipe.method, each.recipe.micro_batch, each.micro_s, step_s / 6, low, mid, high, goal.steps,
            goal.budget_hours, each.verdict(goal), each.peak_bytes / GIB, each.on.memory_bytes / GIB,
            *(memory[name] / GIB for name in _PARTS), each.overhead_bytes / GIB, "; ".join(each.far), each.source,
        ))  # fmt: skip
    part = path.with_name(path.name + ".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    part.replace(path)
