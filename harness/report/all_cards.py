"""What all cards of a machine would give together, where one of them was measured: the others would lie idle."""

from collections.abc import Sequence
from dataclasses import replace
from math import gcd

from harness.analysis.projection import project
from harness.records.measurement import Measurement
from harness.report.format import cell_name, hours


def lines(rows: Sequence[Measurement], steps: int) -> list[str]:
    """One line per ok row with as many of its machine's cards as can share its step; none where it had several.

    Cards of another name would wait for each other, so they are not counted.
    """
    sentences = []
    for row in (row for row in rows if row.ok and row.cell.recipe.data_parallel == 1):
        batch = row.cell.recipe.micro_batch
        sequences = batch * row.cell.recipe.micro_steps_per_step
        cards = max(n for n in range(1, row.cards + 1) if sequences % n == 0)
        if cards == 1:
            continue
        # Each card makes its share of the micro-steps, smaller ones where the share is less than one of them; the
        # update, of a few MB, is made by all.
        part = gcd(batch, sequences // cards)
        recipe = replace(row.cell.recipe, data_parallel=cards, micro_batch=part)
        micro_s = tuple(part / batch * seconds for seconds in row.micro_s)
        shared = project(replace(row, cell=replace(row.cell, recipe=recipe), micro_s=micro_s), steps)
        span = hours(shared.hours_low, shared.hours_mid, shared.hours_high)
        which = "both cards" if cards == 2 else f"{cards} cards"
        sentences.append(
            f"{cell_name(row.cell)}: with {which} sharing its steps, train h is predicted {span}; measure it with "
            f"--gpus {cards}."
        )
    return sentences
