"""What micro-steps share changes nothing of what is learned; and what a micro-step launches."""

from dataclasses import replace

import pytest
import torch

from bench import bench_dispatch
from harness.catalog import precisions
from harness.records.cell import ALL, MLP, Recipe
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.losses import answer_loss
from harness.train.ops import joint_lora
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
PLAIN = Recipe(kernels="plain", sequences_per_step=2, lora_r=8, lora_alpha=24, learning_rate=1e-2)


def _step(spec, recipe=PLAIN, precision="bf16", compute="bf16"):
    loaded = models.load(spec, precisions.find(precision), compute, recipe, "random", CPU)
    torch.manual_seed(1)
    with torch.no_grad():  # B starts at zero, where errors do not show
        for name, p in loaded.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    return TrainingStep(loaded.model, recipe, compute, CPU)


def _batches(recipe=PLAIN):
    return [random_batch(64, tokens, recipe, CPU, seed=tokens) for tokens in (20, 33)]


def _gradients_alone(step, batches):
    """Those of autograd, outside of a step: nothing is shared and nothing waits."""
    step.optimizer.zero_grad()
    for batch in batches:
        (answer_loss(step.model, batch) / step.recipe.sequences_per_step).backward()
    grads = [p.grad.clone() for p in step.params]
    step.optimizer.zero_grad()
    return grads


def _assert_same(step, expected):
    largest = max(grad.abs().max() for grad in expected)
    for p, grad in zip(step.params, expected, strict=True):
        assert p.grad.dtype == p.dtype
        torch.testing.assert_close(p.grad, grad, rtol=0.05, atol=0.02 * float(largest))


@pytest.mark.parametrize("recompute", ["none", MLP, ALL])
@pytest.mark.parametrize(
    ("precision", "targets"),
    [("bf16", "attention"), ("bf16", "all-linear"), ("int4", "attention"), ("fp32", "attention")],
)
def test_gradients_are_those_of_autograd_after_an_update_too(tiny_spec, precision, targets, recompute):
    recipe = replace(PLAIN, lora_targets=targets, gradient_checkpointing=recompute)
    step = _step(tiny_spec, recipe, precision, "fp32" if precision == "fp32" else "bf16")
    batches = _batches(recipe)
    for _ in range(2):  # with the copies that the update leaves, they would be those of the adapter before it
        expected = _gradients_alone(step, batches)
        for batch in batches:
            step.micro_step(batch)
        _assert_same(step, expected)
        step.update()


def test_copies_are_of_the_adapter_as_it_is(tiny_spec):
    step, batches = _step(tiny_spec), _batches()
    step.micro_step(batches[0])
    with torch.no_grad():
        for p in step.params:
            p.mul_(-2)
    expected = _gradients_alone(step, batches)
    for batch in batches:
        step.micro_step(batch)
    _assert_same(step, expected)


def test_a_step_that_fails_leaves_nothing(tiny_spec):
    """Neither gradients that wait, nor outputs that nobody fetched, which would hold the failed graph."""
    step, batches = _step(tiny_spec), _batches()
    layer = step.model.get_base_model().model.layers[1].self_attn.k_proj
    forward = layer.forward

    def fail(x):
        raise RuntimeError("broken")

    layer.forward = fail
    with pytest.raises(RuntimeError, match="broken"):
        step.micro_step(batches[0])
    assert not step.copies.outputs and all(p.grad is None for p in step.params)
    layer.forward = forward
    expected = _gradients_alone(step, batches)
    for batch in batches:
        step.micro_step(batch)
    _assert_same(step, expected)


def test_layers_of_other_inputs_are_computed_alone(tiny_spec, monkeypatch):
    """Keys and values of a layer that takes those of another, say: nobody fetches what was computed together."""
    made, new = [], joint_lora.Group
    monkeypatch.setattr(joint_lora, "Group", lambda *args: made.append(new(*args)) or made[-1])
    step, batches = _step(tiny_spec), _batches()
    attention = step.model.get_base_model().model.layers[0].self_attn
    forward = attention.k_proj.forward
    attention.k_proj.forward = lambda x: forward(x.clone())
    expected = _gradients_alone(step, batches)
    for batch in batches:
        step.micro_step(batch)
    _assert_same(step, expected)
    assert [group.works for group in made] == [False, True]


def test_a_layer_launches_less_than_two_thirds_of_the_plain_ones_and_nothing_waits(monkeypatch):
    """By the difference of two and three layers; a value that the host reads would stop it until the card is done."""
    monkeypatch.setattr(bench_dispatch.attention, "_groups_in_kernel", lambda device, dtype: True)
    per_layer = {}
    for side in bench_dispatch.SIDES:
        totals = []
        for layers in (2, 3):
            micro_step, update = bench_dispatch.build(side, "bf16", layers)
            for run in (micro_step, update, micro_step):
                run()
            counted = bench_dispatch.launches(micro_step, update)
            assert counted.waits == (side == "plain")  # transformers' mask looks whether sequences are packed
            totals.append(counted.counts.total())
        per_layer[side] = totals[1] - totals[0]
    assert per_layer["own"] <= 95 and per_layer["own"] < 2 / 3 * per_layer["plain"]
