"""A process's peak on a card: by NVML, and by CUDA's own count where NVML does not answer."""

import pytest
import torch

from harness.hardware.peak_memory import PeakMemory
from harness.records.measurement import CONTEXT_BYTES

GIB = 1 << 30
CARD = torch.device("cuda:0")


@pytest.fixture
def card(monkeypatch):
    """A card of 16 GiB: `used` bytes on the whole of it, torch reserved some; `nvml`: whether that answers."""
    state = {"used": 0, "reserved": 0, "nvml": True}

    def by_nvml(device):
        if not state["nvml"]:
            raise RuntimeError("NVMLError_InvalidArgument")
        return state["used"]

    monkeypatch.setattr(torch.cuda, "device_memory_used", by_nvml)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16 * GIB - state["used"], 16 * GIB))
    for name in ("memory_reserved", "max_memory_reserved", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: state["reserved"])
    return state


def test_the_difference_by_nvml_leaves_out_what_others_hold(card):
    card["used"] = 3 * GIB  # others'
    memory = PeakMemory(CARD)
    card.update(used=3 * GIB + CONTEXT_BYTES + 5 * GIB, reserved=5 * GIB)
    assert memory.read()["process"] == 5 * GIB + CONTEXT_BYTES
    assert memory.notes == ()


@pytest.mark.parametrize("is_slice", [False, True])
def test_without_nvml_the_context_is_not_lost_and_others_are_left_out(card, is_slice):
    """Others hold 3 GiB. NVML does not answer, or would give the whole card's in a slice."""
    card.update(nvml=is_slice, used=3 * GIB)
    memory = PeakMemory(CARD, is_slice)
    card["used"] += CONTEXT_BYTES  # this process's context, made by now
    assert memory.read()["process"] == CONTEXT_BYTES
    card.update(used=card["used"] + 5 * GIB, reserved=5 * GIB)
    assert memory.read()["process"] == 5 * GIB + CONTEXT_BYTES
    assert "CUDA's own count" in memory.notes[0]


def test_alone_on_a_slice_with_a_small_context(card):
    """Nothing is taken for others' where less than a usual context is in use."""
    memory = PeakMemory(CARD, is_slice=True)
    card["used"] = 200 << 20
    assert memory.read()["process"] == 200 << 20
    card.update(used=(200 << 20) + GIB, reserved=GIB)
    assert memory.read()["process"] == (200 << 20) + GIB


def test_nvml_that_stops_answering_leaves_what_torch_counts(card):
    memory = PeakMemory(CARD)
    card.update(nvml=False, used=6 * GIB, reserved=5 * GIB)
    assert memory.read() == {"allocated": 5 * GIB, "reserved": 5 * GIB}
