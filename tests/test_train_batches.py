"""Sequences one behind the other against each one alone."""

import random

import pytest
import torch
from helpers.records import TINY

from harness.catalog import precisions
from harness.records.cell import ALL, MLP, ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import Batch, first_fit_decreasing, pack
from harness.train.losses import answer_loss, packed_losses
from harness.train.ops import attention
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
# Gemma's window of 8 is shorter than most of the sequences, so that both of its kinds of layer do something.
ARCHITECTURES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {"pad_token_id": 0, "tie_word_embeddings": False, "head_dim": None},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}
LENGTHS = ((30, 7), (2, 1), (12, 11), (9, 4), (21, 2))


def _loaded(kind, **recipe):
    architecture = {**TINY, "model_type": kind, **ARCHITECTURES[kind]}
    spec = ModelSpec(kind, {name: value for name, value in architecture.items() if value is not None}, 256)
    loaded = models.load(spec, precisions.find("fp32"), "fp32", Recipe(lora_r=4, **recipe), "random", CPU, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, p in loaded.model.named_parameters():
        if "lora_B" in name:  # zeros, from which no gradient would reach A
            p.data.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return loaded.model


def _sequences(lengths=LENGTHS, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randint(0, 320, (n,), generator=generator).tolist(), answer) for n, answer in lengths]


def _gradients(model):
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_packed_sequence_has_the_loss_and_the_gradient_that_it_has_alone(kind):
    model, sequences = _loaded(kind), _sequences()
    packed = packed_losses(model, pack(sequences, CPU))
    packed.sum().backward()
    ours = _gradients(model)
    alone = [answer_loss(model, Batch(torch.tensor([ids]), answer)) for ids, answer in sequences]
    torch.testing.assert_close(packed, torch.stack(alone), rtol=1e-5, atol=1e-6)
    sum(alone).backward()
    theirs = _gradients(model)
    assert ours.keys() == theirs.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, grad in theirs.items():
        assert grad.abs().max() > 1e-4, name  # or nothing would be compared
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_no_packed_sequence_sees_another(kind):
    """Other tokens in the sequences around change nothing of a sequence's loss, to the bit."""
    model, sequences = _loaded(kind), _sequences()
    others = [
        mine if i == 2 else other for i, (mine, other) in enumerate(zip(sequences, _sequences(seed=4), strict=True))
    ]
    with torch.no_grad():
        first, second = (packed_losses(model, pack(each, CPU)) for each in (sequences, others))
    assert first[2] == second[2]
    assert all(first[i] != second[i] for i in (0, 1, 3, 4))


def test_packing_is_the_same_under_gradient_checkpointing():
    gradients = []
    for mode in ("none", MLP, "all"):
        model = _loaded("llama", gradient_checkpointing=mode)
        packed_losses(model, pack(_sequences(), CPU)).sum().backward()
        gradients.append(_gradients(model))
    for name, grad in gradients[0].items():
        for again in gradients[1:]:
            torch.testing.assert_close(again[name], grad, msg=name)


def test_a_step_counts_every_sequence_alike_however_it_is_cut():
    """The gradient of a step is the mean of its sequences' own: in one pack, in three, or one by one."""
    sequences, steps = _sequences(), []
    for packs in ([[0, 1, 2, 3, 4]], [[0, 3], [4, 1], [2]], [[i] for i in range(5)]):
        model = _loaded("llama", sequences_per_step=5)
        step = TrainingStep(model, Recipe(sequences_per_step=5), "fp32", CPU)
        total = sum(step.packed_step(pack([sequences[i] for i in members], CPU)).item() for members in packs)
        steps.append((total, _gradients(model)))
    for total, gradients in steps[1:]:
        assert total == pytest.approx(steps[0][0], rel=1e-5)
        for name, grad in steps[0][1].items():
            torch.testing.assert_close(gradients[name], grad, rtol=1e-3, atol=1e-7, msg=name)


def test_packing_by_hand():
    """Three tokens with one of answer, then two with one: answers are at 2 and 4, positions begin anew."""
    packed = pack([((7, 8, 9), 1), ((5, 6), 1)], CPU)
    assert packed.input_ids.tolist() == [[7, 8, 9, 5, 6]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert packed.answer_positions.tolist() == [2, 4]


def test_cutting_by_hand():
    """Longest first into the first pack with room, of 10 tokens: 7 opens one, 6 the next, 3 joins the 7, 4 the 6."""
    assert first_fit_decreasing([3, 7, 6, 4], 10) == [[1, 0], [2, 3]]
    assert first_fit_decreasing([12, 3], 10) == [[0], [1]]
    assert first_fit_decreasing([], 10) == []


@pytest.mark.parametrize("seed", range(50))
def test_cutting_keeps_the_budget_and_loses_nothing(seed):
    """Nothing is lost or doubled; only a sequence longer than the budget passes it, alone; no two packs would fit in
    one; the longest sequence is in the first pack."""
    rng = random.Random(seed)
    lengths, budget = [rng.randint(1, 120) for _ in range(rng.randint(1, 40))], rng.randint(20, 300)
    packs = first_fit_decreasing(lengths, budget)
    assert sorted(i for members in packs for i in members) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in members) for members in packs]
    assert all(tokens <= budget or len(members) == 1 for tokens, members in zip(used, packs, strict=True))
    fewest = sorted(used)[:2]
    assert len(used) < 2 or sum(fewest) > budget
    assert max(lengths) in [lengths[i] for i in packs[0]]


def test_a_pack_moves_to_the_device_once(monkeypatch):
    """On a card three parts, each from pageable memory, would each wait for what the card is doing."""
    moved, whole = [], torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *where, **more: moved.append(more) or whole(self, *where, **more)
    )
    packed = pack([([5, 6, 7], 1), ([8, 9], 1)], CPU)
    assert moved == [{"non_blocking": True}]
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]] and packed.answer_positions.tolist() == [2, 4]


def test_the_order_of_attention_s_kernels_is_set_once_per_micro_step(monkeypatch):
    """As on a card: once, not in every layer, and not again where layers are recomputed."""
    model, sequences, told = _loaded("llama", gradient_checkpointing=ALL), _sequences(), []
    model.train()
    monkeypatch.setattr(attention, "device_kind", lambda device: "cuda")
    attention.set_kernel(model, "sdpa")
    step = TrainingStep(model, Recipe(lora_r=4), "fp32", CPU)
    expected = step.packed_step(pack(sequences, CPU))
    attention.set_kernel(model, "flash")
    whole = attention.sdpa_kernel
    monkeypatch.setattr(attention, "sdpa_kernel", lambda order, **more: told.append(order) or whole(order, **more))
    torch.testing.assert_close(step.packed_step(pack(sequences, CPU)), expected)
    assert told == [attention._ORDERS["flash"]]
    packed_losses(model, pack(sequences, CPU))  # outside of a step every layer tells it
    assert len(told) == 1 + 2 * len(sequences)
