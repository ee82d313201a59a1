"""What NVML tells of a card, and what is made of it where it tells nothing."""

import pytest
import torch

from harness.hardware import card_state
from harness.records.measurement import CardState

CARD = torch.device("cuda:1")


class Nvml:
    """Answers as torch.cuda does: MHz, degrees, milliwatts."""

    def __init__(self, **answers):
        self.answers = {"clock_rate": 1590, "temperature": 76, "power_draw": 69_500} | answers

    def __getattr__(self, name):
        def ask(device):
            assert device == CARD
            if isinstance(self.answers[name], Exception):
                raise self.answers[name]
            return self.answers[name]

        return ask


@pytest.mark.parametrize(
    ("bits", "throttle"),
    [
        (0x0, ()),
        (0x1 | 0x2 | 0x10 | 0x100, ()),  # idle, applications' clocks, sync boost, display: nothing holds it down
        (0x4, ("power cap",)),
        (0x20, ("heat",)),
        (0x20 | 0x40, ("heat",)),
        (0x8 | 0x40 | 0x80, ("hardware slowdown", "heat", "power brake")),
    ],
)
def test_a_reading(bits, throttle):
    assert card_state.read(CARD, Nvml(), lambda device: bits) == CardState(1590.0, 76.0, 69.5, throttle)


def test_what_a_card_does_not_tell_is_none():
    def refuse(device):
        raise RuntimeError("Not Supported")

    silent = Nvml(temperature=RuntimeError("Not Supported"), power_draw=ModuleNotFoundError("pynvml"))
    assert card_state.read(CARD, silent, refuse) == CardState(1590.0)


def test_without_nvml_nothing_is_told():
    """On this machine there is none, or none for such a card."""
    assert isinstance(card_state.read(torch.device("cuda:7")), CardState)
