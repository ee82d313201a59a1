"""What a machine's idle cards would add, by hand."""

from dataclasses import replace

import pytest
from helpers.records import cell, row

from harness.hardware.info import Device
from harness.records.cell import Recipe
from harness.report import all_cards


def _row(cards, **changes):
    on = cell(device="cuda:0", device_name="Tesla T4", **changes)
    return row(cell=on, optimizer_s=(0.5,), cards=cards)


def test_two_cards_by_hand():
    """Half of 16 micro-steps of 1 s and an update of 0.5 s: 8.5 s a step, 2.36 h for 1000, and the warm-up of 1 s."""
    (line,) = all_cards.lines([_row(2)], 1000)
    assert line.startswith("tiny fp32 1024: with both cards sharing its steps, train h is predicted 2.4 (1.9-2.8)")
    assert line.endswith("measure it with --gpus 2.")


def test_a_step_that_is_one_micro_batch_is_divided_too():
    """All 16 sequences in 1 s, half of them in half of it, and an update of 0.5 s: 1 s per step, 0.28 h for 1000."""
    (line,) = all_cards.lines([_row(2, recipe=Recipe(micro_batch=16))], 1000)
    assert "with both cards sharing its steps, train h is predicted 0.28 (" in line and line.endswith(
        "measure it with --gpus 2."
    )


@pytest.mark.parametrize(
    ("cards", "sequences", "gpus"),
    [
        (4, 16, "--gpus 4"),
        (3, 16, "--gpus 2"),  # three cards cannot share 16 sequences
        (3, 15, "--gpus 3"),
        (2, 1, None),
        (1, 16, None),
    ],
)
def test_which_cards_can_share_a_step(cards, sequences, gpus):
    lines = all_cards.lines([_row(cards, recipe=Recipe(sequences_per_step=sequences))], 1000)
    assert [gpus in line for line in lines] == [True] * (gpus is not None)


def test_a_cell_that_failed_or_had_all_cards_has_no_line():
    assert all_cards.lines([row(status="oom", cards=2)], 1000) == []
    assert all_cards.lines([_row(2, recipe=Recipe(data_parallel=2))], 1000) == []


@pytest.mark.parametrize(
    ("others", "cards"),
    [
        (("Tesla T4",) * 3, 4),
        (("Tesla P100-PCIE-16GB", "Tesla T4"), 2),
        (("Tesla P100-PCIE-16GB",), 1),  # they would wait for each other
        ((), 1),
    ],
)
def test_cards_of_one_name_count(others, cards):
    listed = tuple(f"cuda:{i} {name}" for i, name in enumerate(others, 1))
    device = Device("cuda:0", "Tesla T4", 15 << 30, others=listed)
    assert device.alike == cards
    pair = replace(device, name="2 x Tesla T4", partners=("x",))
    assert pair.alike == cards + 1
