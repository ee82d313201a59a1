"""The sentence that predictions end with: which model, and on which card."""

from dataclasses import replace

from helpers.predictions import CARD, predicted

from harness.predict.choice import advice
from harness.records.cell import Goal

GOAL = Goal(budget_hours=12, steps=1000, test_tasks=400)
FAST = replace(CARD, name="fast", rates={"fp16": (20e12, 10e12)})


def of_model(cell, name, params_m):
    return replace(cell, spec=replace(cell.spec, name=name, params_m=params_m))


def seconds(per_context):
    return lambda tokens: per_context * tokens / 1024


def test_the_largest_model_that_fits_on_the_slowest_card():
    small, large = predicted(seconds=seconds(0.2), weights=1 << 30), predicted(seconds=seconds(0.8), weights=2 << 30)
    quick = predicted(seconds=seconds(0.8), card=FAST, weights=2 << 30)
    text = advice([small, of_model(quick, "large", 1500), of_model(large, "large", 1500)], GOAL)
    assert text.startswith("Choose large fp16 at 1024 tokens on one card: the largest of 2 models")
    assert "Predicted, not measured" in text
    # What does not fit the slow card in time is taken on the fast one.
    slow = predicted(seconds=seconds(4.0), weights=2 << 30)
    assert slow.verdict(GOAL) != "fits" and quick.verdict(GOAL) == "fits"
    text = advice([small, of_model(slow, "large", 1500), of_model(quick, "large", 1500)], GOAL)
    assert "large fp16 at 1024 tokens on one fast" in text


def test_a_context_that_admits_half_of_arc_comes_before_size():
    long = predicted(seconds=seconds(0.2), context=2048, weights=1 << 30)
    short = of_model(predicted(seconds=seconds(0.2), context=256, weights=1 << 30), "large", 1500)
    assert "qwen2.5-0.5b fp16 at 2048 tokens" in advice([short, long], GOAL)


def test_where_none_fits_the_nearest_is_named():
    slow, slower = predicted(seconds=seconds(9)), predicted(seconds=seconds(20), card=FAST)
    assert advice([slower, slow], GOAL).startswith("Choose none of these: none surely fits 12 h; the nearest is qwen")
    assert "on one card" in advice([slower, slow], GOAL)
    big = predicted(weights=80 << 30)
    assert advice([big], GOAL) == (
        "Choose none of these: no card surely holds any; the nearest is qwen2.5-0.5b fp16 at 1024 tokens on one card."
    )
    assert advice([], GOAL) == "Nothing could be predicted: there is nothing to choose."
