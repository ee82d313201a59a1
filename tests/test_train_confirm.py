"""Kernels that are fastest alone are tried in a micro-step, and the plain ones stay where they are no slower there."""

from contextlib import contextmanager

import pytest
import torch
from helpers.records import TINY

from harness.catalog import precisions
from harness.records.cell import ModelSpec, Recipe
from harness.train import confirm
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.losses import answer_loss
from harness.train.ops import attention, autoselect, pointwise

CPU = torch.device("cpu")
SPEC = ModelSpec("tiny", {name: value for name, value in TINY.items() if value is not None}, 256)
RECIPE = Recipe(lora_r=4, lora_targets="all-linear", answer_share=0.25)
PLAIN = "attention=blocks pointwise=plain"
CHOSEN = "attention=sdpa pointwise=compiled"


class Clock:
    """A clock that stands still but for `advance`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Alone, sdpa and the compiled kernels win by far; those compiled are plain ones here, so that nothing compiles."""
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    plain = pointwise.of("plain")
    other = pointwise.Pointwise(*(lambda *given, f=f: f(*given) for f in (plain.norm, plain.silu, plain.gelu)))
    monkeypatch.setattr(pointwise, "of", lambda kernel: other if kernel == "compiled" else plain)
    timings = {"attention": {"blocks": 0.2, "sdpa": 0.1}, "pointwise": {"plain": 0.2, "compiled": 0.1}}
    monkeypatch.setattr(autoselect, "measure", lambda *_: timings)
    return tmp_path


@contextmanager
def costing(monkeypatch, blocks_s, sdpa_s):
    """A clock that attention advances, by its kernel; and that of every micro-step."""
    clock, calls = Clock(), []
    whole_attend, whole_step = attention._attend, confirm.micro_step

    def attend(query, key, value, settings):
        clock.advance(sdpa_s if settings.kernel == "sdpa" else blocks_s)
        return whole_attend(query, key, value, settings)

    def micro_step(model, *given):
        calls.append(attention.kernel_of(model))
        return whole_step(model, *given)

    with monkeypatch.context() as world:
        world.setattr(attention, "_attend", attend)
        world.setattr(confirm, "micro_step", micro_step)
        yield clock, calls


def loaded():
    return models.load(SPEC, precisions.find("fp32"), "fp32", RECIPE, "random", CPU)


def tried(monkeypatch, blocks_s, sdpa_s):
    model = loaded()
    assert model.kernels == CHOSEN
    with costing(monkeypatch, blocks_s, sdpa_s) as (clock, calls):
        outcome = confirm.confirm(model.model, model.trial, RECIPE, CPU, 64, clock)
    return model, outcome, calls


def learned(model):
    model.zero_grad(set_to_none=True)
    loss = answer_loss(model, random_batch(320, 40, RECIPE, CPU, seed=0))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]


def test_what_wins_alone_and_loses_in_the_step_is_not_chosen(alone, monkeypatch):
    model, outcome, calls = tried(monkeypatch, blocks_s=0.01, sdpa_s=0.02)
    assert outcome.kernels == PLAIN
    assert outcome.notes[0].startswith(f"{PLAIN} is used, for in a micro-step what is fastest alone is no faster")
    assert "by attention=sdpa pointwise=compiled" in outcome.notes[0]
    assert attention.kernel_of(model.model) == "blocks"
    # In turns, after two first calls of each.
    assert calls[4:] == ["sdpa", "blocks"] * (len(calls) // 2 - 2) and len(calls) >= 8


def test_the_model_learns_the_same_after_it_went_back(alone, monkeypatch):
    model, outcome, _ = tried(monkeypatch, blocks_s=0.01, sdpa_s=0.02)
    assert outcome.unpatched == ()
    reference = models.load(SPEC, precisions.find("fp32"), "fp32", Recipe(**{**vars(RECIPE), "kernels": "plain"}),
                            "random", CPU)  # fmt: skip
    assert [(n, type(m)) for n, m in model.model.named_modules() if "forward" in vars(m)] == [
        (n, type(m)) for n, m in reference.model.named_modules() if "forward" in vars(m)
    ]
    for a, b in zip(learned(model.model), learned(reference.model), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_what_wins_in_the_step_too_stays(alone, monkeypatch):
    model, outcome, _ = tried(monkeypatch, blocks_s=0.02, sdpa_s=0.01)
    assert outcome.kernels == CHOSEN and outcome.notes[0].startswith("a micro-step takes 20 ms by attention=sdpa")
    assert attention.kernel_of(model.model) == "sdpa"


def test_it_is_tried_once_and_kept(alone, monkeypatch):
    tried(monkeypatch, blocks_s=0.01, sdpa_s=0.02)
    _, outcome, calls = tried(monkeypatch, blocks_s=0.02, sdpa_s=0.01)  # the other way round, and not asked
    assert outcome.kernels == PLAIN and not calls


@pytest.mark.parametrize("torn", ["{", "[]", '{"attention=sdpa pointwise=compiled": 1.0}'])
def test_a_torn_file_is_measured_again(alone, monkeypatch, torn):
    loaded()
    before = set((alone / "kernels").glob("*"))
    tried(monkeypatch, blocks_s=0.01, sdpa_s=0.02)
    (path,) = set((alone / "kernels").glob("*")) - before
    path.write_text(torn)
    _, outcome, calls = tried(monkeypatch, blocks_s=0.02, sdpa_s=0.01)
    assert outcome.kernels == CHOSEN and calls


def test_a_slow_step_is_not_tried_for_long(alone, monkeypatch):
    """Two layers at 3 s: the choice stays after the first two micro-steps; at 0.6 s each set runs three times."""
    _, outcome, calls = tried(monkeypatch, blocks_s=3.0, sdpa_s=3.0)
    assert outcome.kernels == CHOSEN and len(calls) == 2
    _, _, calls = tried(monkeypatch, blocks_s=0.6, sdpa_s=0.7)
    assert len(calls) == 2 * 3


def test_quick_steps_take_two_seconds_at_most(alone, monkeypatch):
    _, _, calls = tried(monkeypatch, blocks_s=0.2, sdpa_s=0.2)
    assert 0.4 * (len(calls) - 4) <= confirm._SECONDS + 2 * 0.4 + 1e-9  # at most one round more


def test_the_random_generators_and_gradients_are_left_as_they_were(alone, monkeypatch):
    model = loaded()
    state = torch.get_rng_state()
    with costing(monkeypatch, 0.01, 0.02) as (clock, _):
        confirm.confirm(model.model, model.trial, RECIPE, CPU, 64, clock)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.model.parameters())


def test_without_memory_the_choice_stays(alone, monkeypatch):
    model = loaded()

    def ran_out(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(confirm, "micro_step", ran_out)
    after = models.confirmed(model, RECIPE, CPU, 64)
    assert after.kernels == CHOSEN and after.trial is None


def test_the_row_says_the_kernels_that_stayed(alone, monkeypatch):
    model = loaded()
    monkeypatch.setattr(confirm, "compare", lambda sides, *_: dict(zip(sides, (2.0, 1.0), strict=True)))
    after = models.confirmed(model, RECIPE, CPU, 64)
    assert after.kernels == PLAIN and "is used, for in a micro-step" in after.kernel_notes[-1]


@pytest.mark.parametrize("kernels", ["plain", CHOSEN])
def test_what_is_named_is_not_tried(alone, kernels):
    recipe = Recipe(**{**vars(RECIPE), "kernels": kernels})
    assert models.load(SPEC, precisions.find("fp32"), "fp32", recipe, "random", CPU).trial is None


def test_a_named_part_stays_in_the_plain_set(alone):
    recipe = Recipe(**{**vars(RECIPE), "kernels": "attention=sdpa"})
    trial = models.load(SPEC, precisions.find("fp32"), "fp32", recipe, "random", CPU).trial
    assert trial.choice.plain == {"attention": "sdpa", "pointwise": "plain"}
