"""Measured arms beside published ones: what is said of each, under which conditions, and what cannot be said."""

import io
from dataclasses import replace

import pytest
from helpers.records import cell, result
from rich.console import Console

from harness.catalog.published import ARMS, RUNS
from harness.records.cell import Recipe
from harness.report import published


def shown(*results):
    out = Console(width=80, file=io.StringIO())
    published.show(results, out)
    text = out.file.getvalue()
    assert max(map(len, text.split("\n"))) <= 80
    return text, [" ".join(line.split()) for line in text.split("\n")]


def losing(nats, arm, **changes):
    return result(3, arm=arm, answer_losses=((nats, 10),) * 10, **changes)


def test_an_arm_stands_below_the_published_one_with_its_distance_to_its_own_baseline():
    """0.8 to 0.6 is 25 % less; arc24's 0.1445 to 0.099 is 31.5 % less."""
    text, lines = shown(losing(0.8, "baseline", steps=0), losing(0.6, "+ color swap"))
    at = lines.index("+ color swap published Phi-3 0.099 -31.5 16.8")
    assert lines[at + 1] == "measured tiny 0.600 -25.0 30.0"
    assert "measured tiny 0.800 - 30.0" in lines
    assert "tiny measured 10 30.0 30.0 this record" in lines
    assert "64 steps of 16 sequences, learning rate 5e-05" in " ".join(lines)
    assert "not ranked" in text


def test_every_published_figure_and_source_is_there():
    text, lines = shown()
    for arm in ARMS:
        assert any(line.startswith(f"{arm.arm} published Phi-3") for line in lines)
    for run in RUNS:
        figures = f"{100 * run.before:.1f} {100 * run.after:.1f} {run.source.partition(',')[0]}"
        assert any(figures in line for line in lines)
    assert "MARC" in text and "This record has no arm" in text


def test_a_loss_that_is_no_number_has_no_distance():
    _, lines = shown(losing(0.8, "baseline", steps=0), losing(float("nan"), "n-1"))
    assert "measured tiny nan - 30.0" in lines


def test_runs_of_other_settings_are_told_apart():
    base = losing(0.8, "baseline", steps=0)
    other = losing(0.7, "n-1", recipe=replace(Recipe(), learning_rate=1e-3))
    _, lines = shown(base, losing(0.6, "n-1"), other)
    at = lines.index("n-1 published Phi-3 0.1398 -3.3 7.2")
    assert lines[at + 1 : at + 3] == ["measured 1 tiny 0.600 -25.0 30.0", "measured 2 tiny 0.700 -12.5 30.0"]


@pytest.mark.parametrize("arm", ["n-2", "mixture"])
def test_without_a_baseline_no_change_is_said(arm):
    _, lines = shown(losing(0.6, arm))
    assert any(line.endswith("measured tiny 0.600 - 30.0") for line in lines)
    assert "- measured: no baseline was measured, so there is nothing to compare with." in " ".join(lines)


def test_an_arm_that_failed_or_read_no_output_has_no_figure():
    failed = replace(losing(0.6, "n-1"), status="oom", reason="memory", scores=())
    _, lines = shown(failed, result(0, arm="baseline", steps=0, answer_losses=()))
    assert not any("0.600" in line for line in lines)
    assert "measured tiny - - 0.0" in lines


def test_weights_of_a_gguf_are_called_so():
    _, lines = shown(losing(0.6, "n-1", model=cell().model, weights="gguf:Q4_1@~/model.gguf"))
    assert "tiny fp32, weights gguf Q4_1, dequantised" in " ".join(lines)
