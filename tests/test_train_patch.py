"""What may be put into a model is checked against what it replaces, and taken out of the way where it differs."""

import pytest
import torch
from helpers.records import TINY

from harness.catalog import precisions
from harness.records.cell import OPTIMIZED, REFERENCE, ModelSpec, Recipe
from harness.train import agreement, patch
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.losses import answer_loss, reference_loss
from harness.train.ops import pointwise
from harness.train.ops.cross_entropy import AnswerLosses

CPU = torch.device("cpu")


def _loaded(tiny_spec, **recipe):
    return models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(**recipe), "random", CPU)


def _forwards(model):
    return {name for name, module in model.named_modules() if "forward" in vars(module)}


def test_every_kind_is_replaced_in_every_layer(tiny_spec):
    """Two layers: four adapters, attention around them, two norms, an MLP each, and the norm at the end; the last layer
    itself."""
    forwards = _forwards(_loaded(tiny_spec).model)
    layers = "base_model.model.model.layers"
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    expected = {f"{layers}.{i}.self_attn.{part}" for i in (0, 1) for part in parts}
    expected |= {
        f"{layers}.{i}.{part}"
        for i in (0, 1)
        for part in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
    }
    assert forwards == expected | {f"{layers}.1", "base_model.model.model.norm"}


def test_the_reference_is_left_as_it_comes(tiny_spec):
    model = _loaded(tiny_spec, implementation=REFERENCE).model
    assert _forwards(model) == set() and not patch.has_own_head(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("change", ["norm", "mlp", "head"])
def test_what_computes_something_else_stays(tiny_spec, change):
    """A norm with an offset, an MLP with a factor, logits with a cap: each is found out, named, and trains right."""
    model = _loaded(tiny_spec, implementation=REFERENCE).model
    model.get_base_model().set_attn_implementation("plain_causal")
    body = model.get_base_model().model
    kinds = {"norm": (type(body.norm), "LlamaRMSNorm"), "mlp": (type(body.layers[0].mlp), "LlamaMLP")}
    if change == "head":
        head = model.get_base_model().lm_head
        head.register_forward_hook(lambda module, args, out: 3 * torch.tanh(out / 3))
        with torch.no_grad():  # logits large enough to feel the cap
            head.weight.mul_(40)
    else:
        kind = kinds[change][0]
        odd = type(kind.__name__, (kind,), {"forward": lambda self, x: 1.1 * kind.forward(self, x)})
        for module in model.modules():
            if type(module) is kind:
                module.__class__ = odd
    unpatched = patch.patch_model(model)
    assert len(unpatched) == 1
    assert unpatched == ["the loss"] if change == "head" else kinds[change][1] in unpatched[0]
    batch = random_batch(320, 24, Recipe(), CPU, seed=0)
    torch.testing.assert_close(answer_loss(model, batch), reference_loss(model, batch), rtol=1e-5, atol=1e-6)


def test_what_is_asked_in_another_way_stays():
    """Experts whose matrices are one parameter, and a norm that takes a gate too: names alone decide nothing."""

    class GatedRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(8), requires_grad=False), 1e-6

        def forward(self, x, gate):
            return x * gate

    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up_proj = torch.nn.Parameter(torch.ones(2, 8, 8), requires_grad=False)
            self.down_proj = torch.nn.Parameter(torch.ones(2, 4, 8), requires_grad=False)

    candidates = list(patch._candidates(norm := GatedRMSNorm(), [pointwise.of("plain")]))
    assert candidates
    assert not any(agreement.passes(agreement.agrees, norm, forward, torch.float32) for _, forward in candidates)
    assert list(patch._candidates(Experts(), [pointwise.of("plain")])) == []


@pytest.mark.parametrize("option", [{"lora_dropout": 0.5}, {}])
def test_dropout_is_left_to_peft(tiny_spec, option):
    forwards = _forwards(_loaded(tiny_spec, **option).model)
    assert any("q_proj" in name for name in forwards) == (not option)


def test_a_high_alpha_in_fp16_is_no_reason_to_leave_an_mlp(tiny_spec):
    """Values that overflow in both ways, at the large inputs of the comparison, say nothing of either."""
    recipe = Recipe(lora_targets="all-linear", lora_r=4, lora_alpha=256)
    loaded = models.load(tiny_spec, precisions.find("fp16"), "fp16", recipe, "random", CPU)
    assert loaded.unpatched == ()


def test_checking_leaves_the_adapter_as_it_was(tiny_spec):
    ours, plain = (_loaded(tiny_spec, implementation=kind).model for kind in (OPTIMIZED, REFERENCE))
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def _hidden(dtype, rows=9, width=16, vocab=50):
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(n, width, generator=generator).to(dtype) for n in (rows, vocab))
    return hidden.requires_grad_(), head, torch.randint(vocab, (rows,), generator=generator)


@pytest.mark.parametrize("at_once", [1, 149, 10**9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_loss_in_chunks_is_cross_entropy(dtype, at_once, monkeypatch):
    """Rows weighted differently, in chunks of one row, of two, and all at once."""
    from harness.train.ops import cross_entropy

    monkeypatch.setattr(cross_entropy, "_LOGITS_AT_ONCE", at_once)
    hidden, head, targets = _hidden(dtype)
    weight = torch.linspace(-1, 2, len(hidden), dtype=dtype)
    losses = AnswerLosses.apply(hidden, head, None, targets)
    (ours,) = torch.autograd.grad((losses * weight).sum(), hidden)
    expected = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    (theirs,) = torch.autograd.grad((expected * weight).sum(), hidden)
    torch.testing.assert_close(losses, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_small_gradients_survive_fp16():
    """Over 30,000 tokens a wrong token's share is below fp16's last digit but for the lift; against float64."""
    hidden, head, targets = _hidden(torch.float16, rows=4, vocab=30_000)
    head = head * 0.01
    losses = AnswerLosses.apply(hidden, head, None, targets)
    (ours,) = torch.autograd.grad(losses.sum(), hidden)
    exact = hidden.detach().double().requires_grad_()
    truth = torch.nn.functional.cross_entropy(exact @ head.double().T, targets, reduction="sum")
    (theirs,) = torch.autograd.grad(truth, exact)
    assert (ours.double() - theirs).norm() / theirs.norm() < 0.01


@pytest.mark.parametrize("gate", ["silu", "gelu"])
def test_gates_have_the_gradient_that_differences_give(gate):
    parts = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(getattr(pointwise.of("plain"), gate), parts)


def test_the_reference_step_counts_every_token_of_the_head():
    """On the meta device: the head's product over all tokens, and checkpointing left out of the count."""
    from harness.predict import flops

    spec = ModelSpec("tiny", dict(TINY), 256)
    own, _ = flops.count_flops(spec, Recipe())
    plain, _ = flops.count_flops(spec, Recipe(implementation=REFERENCE))
    head = 2 * 64 * 320 * (1 - 0.12)  # a token that is no answer
    assert plain.forward_linear > own.forward_linear + 0.5 * head
