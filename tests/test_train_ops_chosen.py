"""The chosen kernels run, compute what the plain step does, and stand in the rows."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from helpers.records import TINY, row
from torch.nn.attention import SDPBackend

from harness.catalog import precisions
from harness.records.cell import ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import pack, random_batch
from harness.train.losses import answer_loss
from harness.train.ops import attention, pointwise
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
FIRST = "attention=blocks pointwise=plain"


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "phi3", "qwen3"])
def test_a_model_learns_the_same_by_every_kernel_of_the_cpu(kind):
    """Norms in both ways, gates apart and joined, SiLU and GELU, norms of heads: loss and gradients."""
    architecture = {**TINY, "model_type": kind, **({"pad_token_id": 0, "head_dim": None} if kind == "phi3" else {})}
    spec = ModelSpec(kind, {name: value for name, value in architecture.items() if value is not None}, 256)
    gradients = {}
    for chosen in (FIRST, "attention=sdpa pointwise=compiled"):
        recipe = Recipe(lora_r=4, lora_targets="all-linear", answer_share=0.25, kernels=chosen)
        loaded = models.load(spec, precisions.find("fp32"), "fp32", recipe, "random", CPU)
        assert (loaded.kernels, loaded.unpatched) == (chosen, ())
        loss = answer_loss(loaded.model, random_batch(320, 40, recipe, CPU, seed=0))
        loss.backward()
        gradients[chosen] = [loss.detach(), *(p.grad for p in loaded.model.parameters() if p.requires_grad)]
    for a, b in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_attention_that_was_chosen_is_the_one_that_runs(tiny_spec, monkeypatch):
    def attend(*_):
        raise ArithmeticError("blocks ran")

    for chosen, runs in (("attention=sdpa pointwise=plain", False), (FIRST, True)):
        recipe = Recipe(lora_r=4, kernels=chosen)
        loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", recipe, "random", CPU)
        with monkeypatch.context() as world:
            world.setattr(attention.cpu_attention, "attend", attend)
            with pytest.raises(ArithmeticError) if runs else nullcontext():
                answer_loss(loaded.model, random_batch(320, 16, recipe, CPU, seed=0))


@pytest.mark.parametrize("right", [True, False])
def test_the_pointwise_kernel_that_was_chosen_runs_unless_it_computes_something_else(tiny_spec, monkeypatch, right):
    """Two layers have two norms and a gate each, and one norm at the end; the check of each kind comes before."""
    plain, ran = pointwise.of("plain"), []

    def counted(name):
        def run(*given):
            ran.append(name)
            return getattr(plain, name)(*given) * (1.0 if right else 1.01)

        return run

    other = pointwise.Pointwise(*map(counted, ("norm", "silu", "gelu")))
    monkeypatch.setattr(pointwise, "of", lambda kernel: plain if kernel == "plain" else other)
    recipe = Recipe(lora_r=4, kernels="attention=blocks pointwise=compiled")
    loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", recipe, "random", CPU)
    assert ran and loaded.unpatched == ()
    ran.clear()
    answer_loss(loaded.model, random_batch(320, 16, recipe, CPU, seed=0))
    assert sorted(ran) == (["norm"] * 5 + ["silu"] * 2 if right else [])


def enabled_in_order():
    """The kernels of attention that torch may use now, the first first."""
    order = [SDPBackend(number) for number in torch._C._get_sdp_priority_order()]
    enabled = torch.nn.attention._cur_sdpa_kernel_backends()
    return [kernel for kernel in order if kernel in enabled]


@pytest.mark.parametrize(
    ("kernel", "first", "grouped"),
    [("sdpa", SDPBackend.FLASH_ATTENTION, True), ("flash", SDPBackend.FLASH_ATTENTION, True), (None, None, True),
     ("efficient", SDPBackend.EFFICIENT_ATTENTION, False), ("cudnn", SDPBackend.CUDNN_ATTENTION, False)],
)  # fmt: skip
@pytest.mark.parametrize("alone", [False, True])
def test_on_a_card_the_kernel_comes_first_and_gets_heads_as_it_takes_them(monkeypatch, kernel, first, grouped, alone):
    """Shapes alone, on the meta device: only flash attention takes fewer key heads than query heads."""
    seen = []

    def attend(query, key, value, enable_gqa, **_):
        seen.append((enabled_in_order(), enable_gqa, key.shape[1]))
        return query

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    parts = [torch.empty(1, heads, 6, 8, device="meta", dtype=torch.bfloat16) for heads in (4, 2, 2)]
    with attention.traced_as("cuda"):
        out = attention.with_kernel(kernel, *parts, alone=alone)
    assert out.shape == (1, 6, 4, 8)
    ((order, gqa, heads),) = seen
    assert (gqa, heads) == (grouped, 2 if grouped else 4)
    if first is not None:
        only = alone and kernel != "sdpa"
        assert order[0] == first and (order == [first] if only else SDPBackend.MATH in order)
    # Unless it is named, torch must not take it: it makes a plan for every new length.
    if kernel == "sdpa":
        assert SDPBackend.CUDNN_ATTENTION not in order


def test_packs_of_new_lengths_go_by_no_plans_of_cudnn(tiny_spec, monkeypatch):
    """The plain step's packs on a card with compute capability 9.0, whose own first choice is cuDNN."""
    model = models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(lora_r=4), "random", CPU).model
    orders, whole = [], torch.nn.functional.scaled_dot_product_attention

    def attend(*args, **more):
        orders.append(enabled_in_order())
        return whole(*args, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(attention, "device_kind", lambda device: "cuda")
    attention.set_kernel(model, "sdpa")
    step = TrainingStep(model, Recipe(lora_r=4), "fp32", CPU)
    step.packed_step(pack([([5, 6, 7, 8], 2), ([9, 10], 1)], CPU))
    assert orders and all(SDPBackend.CUDNN_ATTENTION not in order for order in orders)
    assert SDPBackend.CUDNN_ATTENTION in enabled_in_order()  # as it was


def test_the_row_says_which_backend_attends_on_a_card(tiny_spec, monkeypatch):
    model = models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(lora_r=4), "random", CPU).model
    assert models.attention_ran(model, CPU, 64) == ()
    # A card's tensors stand on the CPU here; torch chooses as it would, by their dtype and shape.
    empty, card = torch.empty, torch.device("cuda")
    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, device: empty(*shape, dtype=dtype))
    monkeypatch.setattr(attention, "device_kind", lambda device: "cuda")
    attention.set_kernel(model, "sdpa")
    assert models.attention_ran(model, card, 64) == ("attention of 64 tokens runs in torch's flash backend",)
    with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):
        attention.set_kernel(model, None)
        assert models.attention_ran(model, card, 64) == ("attention of 64 tokens runs in torch's math backend",)
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    (sentence,) = models.attention_ran(model, card, 64)
    assert "is not known" in sentence


def test_rows_say_which_kernels_ran():
    from harness.records.cell import Goal
    from harness.report import frame, speed_notes

    one = replace(row(), kernels=FIRST)
    other = replace(one, kernels="attention=sdpa pointwise=plain", cell=replace(one.cell, precision="int8"))
    assert speed_notes.kernels([one, one]) == [
        f"Kernels: {FIRST}; the fastest on this device unless --kernels sets them."
    ]
    for each, line in zip([one, other], speed_notes.kernels([one, other]), strict=True):
        assert f"{each.kernels} ({each.cell.model.name} {each.cell.label})" in line
    assert [each["kernels"] for each in frame.summary_frame([one, other], Goal(12, 1000, 400))] == [
        FIRST,
        other.kernels,
    ]
    chosen = replace(one.cell, recipe=replace(one.cell.recipe, kernels="attention=sdpa pointwise=plain"))
    assert chosen.label.endswith("/sdpa/plain") and chosen.key({}) != one.cell.key({})
