"""What a machine's idle cards would add, by hand."""

import pytest
from helpers.records import cell, row

from harness.hardware.info import Device
from harness.records.cell import Recipe
from harness.report import all_cards


def _device(*others):
    return Device("cuda:0", "Tesla T4", 15 << 30, others=tuple(f"cuda:{i} {name}" for i, name in enumerate(others, 1)))


def _row(**changes):
    return row(cell=cell(device="cuda:0", device_name="Tesla T4", **changes), optimizer_s=(0.5,))


def test_two_cards_by_hand():
    """Half of 16 micro-steps of 1 s and an update of 0.5 s: 8.5 s a step, 2.36 h for 1000, and the warm-up of 1 s."""
    (line,) = all_cards.lines([_row()], _device("Tesla T4"), 1000)
    assert line.startswith("tiny fp32 1024: with both cards, predicted 2.4 (1.9-2.8) h")
    assert line.endswith("measure it with --gpus 2.")


@pytest.mark.parametrize(
    ("others", "sequences", "gpus"),
    [
        (("Tesla T4",) * 3, 16, "--gpus 4"),
        (("Tesla T4",) * 2, 16, "--gpus 2"),  # three cards cannot share 16 sequences
        (("Tesla T4",) * 2, 15, "--gpus 3"),
        (("Tesla P100-PCIE-16GB", "Tesla T4"), 16, "--gpus 2"),
        (("Tesla P100-PCIE-16GB",), 16, None),
        (("Tesla T4",), 1, None),
        ((), 16, None),
    ],
)
def test_which_cards_can_share_a_step(others, sequences, gpus):
    lines = all_cards.lines([_row(recipe=Recipe(sequences_per_step=sequences))], _device(*others), 1000)
    assert [gpus in line for line in lines] == [True] * (gpus is not None)


def test_a_cell_that_failed_or_had_all_cards_has_no_line():
    assert all_cards.lines([row(status="oom")], _device("Tesla T4"), 1000) == []
    both = Device("cuda:0", "2 x Tesla T4", 15 << 30, partners=("x",))
    assert all_cards.lines([_row(recipe=Recipe(data_parallel=2))], both, 1000) == []
