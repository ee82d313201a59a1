"""What to choose of predictions for several cards: one sentence."""

from collections.abc import Sequence

from harness.arc.lengths import PUBLISHED
from harness.digits import rounded
from harness.predict.prediction import Prediction
from harness.records.cell import Goal

_HALF = 0.5  # of ARC's sequences: a context that admits fewer is of little use


def advice(predictions: Sequence[Prediction], goal: Goal) -> str:
    """The largest model that is predicted to fit, at a context that admits half of ARC's sequences if any such fits, on
    the least card that holds it; else the cell that comes nearest."""
    if not predictions:
        return "Nothing could be predicted: there is nothing to choose."
    budget = f"{goal.budget_hours:.7g} h"
    fitting = [cell for cell in predictions if cell.verdict(goal) == "fits"]
    if not fitting:
        held = [cell for cell in predictions if cell.fits_memory()]
        if not held:
            least = min(predictions, key=lambda cell: cell.peak_bytes / cell.accelerator.memory_bytes)
            return f"Choose none of these: no card surely holds any; the nearest is {_named(least)}."
        nearest = min(held, key=lambda cell: cell.hours(goal)[2])
        named = f"{_named(nearest)}, {_hours(nearest, goal)}"
        return f"Choose none of these: none surely fits {budget}; the nearest is {named}."
    best = max(fitting, key=lambda cell: (_useful(cell), cell.spec.params_m or 0.0, cell.context))
    # Of the cells like it the one on the slowest card, which is the cheapest to have.
    alike = [cell for cell in fitting if (cell.spec.name, cell.context) == (best.spec.name, best.context)]
    chosen = min(alike, key=lambda cell: max(forward for forward, _ in cell.accelerator.rates.values()))
    count = len({cell.spec.name for cell in predictions})
    which = f"the largest of {count} models" if count > 1 else "the only model that was asked for"
    where = ", on the slowest of the cards where it does" if len({id(cell.accelerator) for cell in alike}) > 1 else ""
    return (
        f"Choose {_named(chosen)}: {which} that is predicted to fit {budget}{where}; {_hours(chosen, goal)}. "
        "Predicted, not measured: a bench on that card takes minutes."
    )


def _useful(cell: Prediction) -> bool:
    return PUBLISHED.coverage(cell.context) >= _HALF


def _named(cell: Prediction) -> str:
    card = "the CPU" if cell.accelerator.kind == "cpu" else f"one {cell.accelerator.name}"
    return f"{cell.spec.name} {cell.precision.name} at {cell.context} tokens on {card}"


def _hours(cell: Prediction, goal: Goal) -> str:
    low, mid, high = cell.hours(goal)
    memory = f"{cell.peak_bytes / 2**30:.1f} of {cell.accelerator.memory_bytes / 2**30:.1f} GiB"
    return f"{rounded(mid)} h ({rounded(low)} to {rounded(high)}) and {memory}"
