"""What all cards of a machine would give together, where one of them was measured: the others would lie idle."""

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.projection import project
from harness.hardware.info import Device
from harness.records.measurement import Measurement
from harness.report.format import cell_name, hours


def lines(rows: Sequence[Measurement], device: Device, steps: int) -> list[str]:
    """One line per ok row with as many of the cards beside `device` as can share its step; none where it is alone.

    Cards of another name would wait for each other, so they are not counted.
    """
    alike = sum(other.partition(" ")[2] == device.name for other in device.others)
    if not alike:
        return []
    sentences = []
    for row in rows:
        shares = row.cell.recipe.micro_steps_per_step
        cards = max((n for n in range(1, alike + 2) if row.ok and shares % n == 0), default=1)
        if cards == 1:
            continue
        # Each card makes its share of the micro-steps; the update, of a few MB, is made by all.
        recipe = replace(row.cell.recipe, data_parallel=cards)
        shared = project(replace(row, cell=replace(row.cell, recipe=recipe)), steps)
        span = hours(shared.hours_low, shared.hours_mid, shared.hours_high)
        which = "both cards" if cards == 2 else f"{cards} cards"
        sentences.append(f"{cell_name(row.cell)}: with {which}, predicted {span} h; measure it with --gpus {cards}.")
    return sentences
