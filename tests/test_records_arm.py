"""Results of fine-tunes: JSON in and out, and what makes another key."""

import json
from dataclasses import replace

import pytest
from helpers.records import cell, curve, result

from harness.records.arm import ArmResult, from_json, to_json
from harness.records.cell import Recipe


def test_results_survive_json():
    results = [
        result(5, curve_points=curve(10, 2, 3), attempts={"t0": (("12\n34", "5"), ())}),
        result(0, steps=0, arm="baseline", answer_losses=(), commit="abc", scope="task", too_long=3),
        result(1, environment={"cuda": "13.0"}),
    ]
    results.append(replace(results[0], spec=replace(results[0].spec, too_long="drop")))
    for each in results:
        assert from_json(json.loads(json.dumps(to_json(each)))) == each


@pytest.mark.parametrize(
    ("changed", "same", "baseline"),
    [
        ({"device": "cuda:1"}, True, True),
        ({"model": replace(cell().model, ttft={"steps": 3})}, True, True),
        ({"steps": 65}, False, True),
        ({"scope": "task"}, False, True),
        ({"curve": True}, False, True),
        ({"recipe": Recipe(learning_rate=1e-3)}, False, True),
        ({"tasks": ("t1",)}, False, False),
        ({"dataset": "other"}, False, False),
        ({"views": 3}, False, False),
        ({"weights": "/other"}, False, False),
        ({"precision": "int4"}, False, False),
        ({"context": 2048}, False, False),
        ({"too_long": "drop"}, False, False),
        ({"seed": 1}, False, False),
        ({"device_name": "another CPU"}, False, False),
    ],
)
def test_what_makes_another_result(changed, same, baseline):
    """The baseline is not trained, so what only training knows of gives it no other key."""
    one = result(1).spec
    other = replace(one, **changed)
    assert (one.key("n-1", {}) == other.key("n-1", {})) == same
    assert (one.key("baseline", {}) == other.key("baseline", {})) == baseline
    assert one.key("n-1", {}) != one.key("n-2", {}) != one.key("n-1", {"torch": "9"})


def test_on_a_card_another_environment_gives_another_result():
    """A minor version of the driver does not; nor do rows without one, a CPU's, get another key by its absence."""
    spec, card = result(1).spec, {"cuda": "13.0", "cudnn": "9.20.0", "driver": "580.65.06"}
    row = ArmResult.of(spec, "n-1", {}, commit=None, started="", environment=card)
    assert row.key == spec.key("n-1", {}, card) != spec.key("n-1", {}) == spec.key("n-1", {}, {})
    assert row.key == spec.key("n-1", {}, {**card, "driver": "580.82.07"})
    for changed in ({"cuda": "12.6"}, {"cudnn": "9.10.2"}, {"driver": "570.1"}):
        assert spec.key("n-1", {}, {**card, **changed}) != row.key
        assert spec.key("baseline", {}, {**card, **changed}) != spec.key("baseline", {}, card)
