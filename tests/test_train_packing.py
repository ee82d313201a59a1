"""Memory that runs out in the middle of a fine-tune: less is packed, more recomputed, and nothing else changes."""

import pytest
import torch
from helpers.records import TINY

from harness.catalog import precisions
from harness.records.cell import ALL, MLP, NONE, ModelSpec, Recipe
from harness.train import model as models
from harness.train import recompute
from harness.train.packing import Packing, PackSetting, default_tokens_at_once
from harness.train.step import RanOut, TrainingStep
from harness.tune import finetune

CPU = torch.device("cpu")
RECIPE = Recipe(lora_r=4, sequences_per_step=4, learning_rate=1e-2, lora_dropout=0.0)
ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp"),  # bitsandbytes
    RuntimeError("Triton Error [CUDA]: out of memory"),
)


def _model():
    spec = ModelSpec("tiny", dict(TINY), 256)
    return models.load(spec, precisions.find("fp32"), "fp32", RECIPE, "random", CPU, seed=1).model


def _sequences(lengths=(30, 20, 24, 9)):
    generator = torch.Generator().manual_seed(3)
    while True:
        for n in lengths:
            yield torch.randint(320, (n,), generator=generator).tolist(), n // 2


def _trained(tokens=90, failing=lambda packs: None, steps=5):
    """(losses, adapter, notes, packs) of a fine-tune; `failing` gets the tokens of all packs so far and may raise."""
    model, packs, notes = _model(), [], []
    step = TrainingStep(model, RECIPE, "fp32", CPU)
    whole = step.packed_step

    def packed_step(packed):
        loss = whole(packed)  # the gradient of this pack is there when memory runs out
        packs.append(sum(packed.lengths))
        failing(packs)
        return loss

    step.packed_step = packed_step
    packing = Packing(model, PackSetting(tokens), notes.append)
    losses = finetune.tune(step, _sequences(), steps, packing=packing).losses
    return losses, finetune.Adapter(model).values(), packing, packs


def _raises_at(problem, *calls):
    def failing(packs):
        if len(packs) in calls:
            raise problem

    return failing


def test_what_gives_way_and_in_which_order():
    settings, setting = [], PackSetting(1000)
    while setting:
        settings.append((setting.tokens, setting.recompute))
        setting = setting.smaller(longest=300)
    assert settings == [(1000, NONE), (500, NONE), (300, NONE), (300, MLP), (300, ALL)]


@pytest.mark.parametrize("problem", ERRORS, ids=str)
def test_a_step_whose_memory_ran_out_is_run_again_with_less(problem):
    """The third step fails in its second pack of 64 tokens: its sequences are trained on once, in smaller packs."""
    losses, adapter, _, packs = _trained(tokens=64)
    assert packs[:2] == [63, 20]
    again, other, packing, packs = _trained(tokens=64, failing=_raises_at(problem, 6))
    assert packs[4:9] == [63, 20, 30, 24, 29]
    assert packing.setting == PackSetting(32, NONE)
    assert again == pytest.approx(losses, rel=1e-5)
    for name, values in adapter.items():
        torch.testing.assert_close(other[name], values, rtol=1e-3, atol=1e-5)
    assert packing.notes == [
        "memory ran out in step 3: going on with 32 tokens at once, which learns the same more slowly"
    ]


def test_where_packs_cannot_be_smaller_more_is_recomputed():
    losses, adapter, *_ = _trained(tokens=1)
    again, other, packing, _ = _trained(tokens=1, failing=_raises_at(ERRORS[1], 2, 3))
    assert packing.setting == PackSetting(1, ALL) and len(packing.notes) == 2
    assert packing.model.get_base_model().is_gradient_checkpointing
    assert again == pytest.approx(losses, rel=1e-6)
    for name, values in adapter.items():
        torch.testing.assert_close(other[name], values, rtol=1e-4, atol=1e-6)


def test_where_nothing_helps_it_ends_out_of_memory():
    with pytest.raises(torch.OutOfMemoryError, match="CUBLAS"):
        _trained(failing=_raises_at(ERRORS[2], *range(100)))


def test_other_errors_are_not_met_by_smaller_packs():
    with pytest.raises(RuntimeError, match="shapes"):
        _trained(failing=_raises_at(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 2))


def test_an_update_is_never_made_twice():
    """Memory that runs out in the update may have changed some of the adapter: the arm ends."""
    model = _model()
    step = TrainingStep(model, RECIPE, "fp32", CPU)
    step.optimizer.step = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no room for moments"))
    with pytest.raises(torch.OutOfMemoryError, match="moments") as raised:
        finetune.tune(step, _sequences(), 1, packing=Packing(model, PackSetting(64)))
    assert not isinstance(raised.value, RanOut)


def test_a_rehearsal_meets_the_fullest_pack_and_changes_nothing():
    torch.manual_seed(5)
    model, seen = _model(), []
    step, packing = TrainingStep(model, RECIPE, "fp32", CPU), Packing(model, PackSetting(120))
    whole, before = step.packed_step, finetune.Adapter(model).values()

    def packed_step(packed):
        seen.append((packed.lengths, packed.answer_tokens))
        if len(packed.lengths) > 1:
            raise torch.OutOfMemoryError("too much")
        torch.rand(3)  # as dropout draws
        return whole(packed)

    step.packed_step = packed_step
    state = torch.get_rng_state()
    finetune.rehearse(step, packing, 60, 99)
    assert seen == [((60, 60), (59, 59)), ((60,), (59,))]
    assert packing.setting == PackSetting(60, NONE)
    assert "with the fullest pack" in packing.notes[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert not step.optimizer.state and all(p.grad is None for p in model.parameters())
    after = finetune.Adapter(model).values()
    assert all(torch.equal(after[name], values) for name, values in before.items())


def test_packs_grow_with_the_memory_that_is_free():
    """40 values of 4 bytes per token, layer (2) and unit of width (64): 20 KiB a token."""
    model = _model()
    assert default_tokens_at_once(model) == 2**29 // 20480
    assert default_tokens_at_once(model, lambda device: 2**34) == 2**33 // 20480
    assert default_tokens_at_once(model, lambda device: 2**20) == 2**29 // 20480


@pytest.mark.parametrize(
    ("recipe", "config", "kept"),
    [
        ({}, {}, False),
        ({"lora_dropout": 0.1}, {}, True),
        ({}, {"attention_dropout": 0.1}, True),
        ({}, {"attention_dropout": 0.0}, False),
    ],
)
@pytest.mark.parametrize("mode", [MLP, ALL])
def test_random_states_are_kept_for_recomputing_only_where_something_is_drawn(monkeypatch, recipe, config, kept, mode):
    """A model without dropout pays no wait for them; one with dropout draws the same masks again."""
    asked = []
    whole = recompute.checkpoint
    monkeypatch.setattr(recompute, "checkpoint", lambda *a, **more: asked.append(more) or whole(*a, **more))
    spec = ModelSpec("tiny", dict(TINY) | config, 256)
    own = Recipe(lora_r=4, sequences_per_step=2, gradient_checkpointing=mode, **recipe)
    model = models.load(spec, precisions.find("fp32"), "fp32", own, "random", CPU, seed=1).model
    assert recompute.draws(model) == kept
    if mode == MLP:
        TrainingStep(model, own, "fp32", CPU).run([([1] * 20, 4)] * 2, 64)
        assert asked and all(more["preserve_rng_state"] == kept for more in asked)
