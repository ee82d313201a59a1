"""Which kernels run: named, or tried here and kept; what does not run is left out with its reason."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.records import TINY, row
from torch.nn.attention import SDPBackend

from harness import files
from harness.catalog import kernels as table
from harness.catalog import precisions
from harness.catalog.recipes import RecipeOptions, resolve
from harness.errors import Unsupported, UserError
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import pack, random_batch
from harness.train.losses import answer_loss
from harness.train.ops import attention, autoselect, pointwise
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
SHAPES = autoselect.Shapes(heads=4, kv_heads=2, head_dim=8, hidden_size=32, intermediate_size=48)
FIRST = "attention=blocks pointwise=plain"


@pytest.fixture
def empty(monkeypatch, tmp_path):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    return tmp_path / "kernels"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("auto", "auto"),
        ("plain", "plain"),
        ("pointwise=compiled", "pointwise=compiled"),
        ("pointwise=liger,attention=flash", "attention=flash pointwise=liger"),
    ],
)
def test_kernels_are_stored_in_one_way_of_writing(text, stored):
    assert table.normalize(text) == stored
    assert resolve(Recipe(), RecipeOptions(kernels=text)).kernels == stored


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("fast", "names no part"),
        ("softmax=flash", "names no part"),
        ("attention=flsh", "did you mean flash"),
        ("attention=sdpa attention=flash", "names attention twice"),
        ("pointwise=", "unknown kernel of pointwise"),
    ],
)
def test_what_names_no_kernel_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        table.normalize(text)


def test_the_reference_step_has_no_kernels_to_choose():
    with pytest.raises(UserError, match="leave it out"):
        resolve(Recipe(implementation=REFERENCE), RecipeOptions(kernels="plain"))


def test_the_fastest_is_taken_and_said():
    best, notes = autoselect.fastest_kernel(
        "attention", {"sdpa": 0.004, "flash": 0.002, "efficient": 0.0019, "cudnn": "no such"}
    )
    assert best == "flash"  # efficient is faster by no more than noise
    assert notes == [
        "attention: flash is used (sdpa 4.00 ms, flash 2.00 ms, efficient 1.90 ms)",
        "attention: flash is used, for cudnn does not run here: no such",
    ]
    assert autoselect.fastest_kernel("pointwise", {"plain": 0.5}) == ("plain", [])


def test_measured_once_a_device_and_kept(empty, monkeypatch):
    measured = []

    def measure(shapes, device, dtype):
        measured.append((shapes, dtype))
        return {"attention": {"blocks": 0.2, "sdpa": 0.1}, "pointwise": {"plain": 0.1, "compiled": "no compiler"}}

    monkeypatch.setattr(autoselect, "measure", measure)
    for _ in range(2):
        chosen = autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
        assert str(chosen) == "attention=sdpa pointwise=plain"
        assert "for compiled does not run here: no compiler" in " ".join(chosen.notes)
    assert measured == [(SHAPES, torch.float32)]
    autoselect.choose_kernels("auto", SHAPES, CPU, torch.bfloat16)
    autoselect.choose_kernels("auto", replace(SHAPES, hidden_size=64), CPU, torch.float32)
    assert len(measured) == 3 == len(list(empty.iterdir()))


def test_a_compiler_installed_later_is_tried(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "measure", lambda *_: {"attention": {"blocks": 0.2}, "pointwise": {"plain": 0.1}})
    for compiler in (None, "/usr/bin/cc"):
        monkeypatch.setattr(autoselect, "which", lambda name, compiler=compiler: compiler)
        autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    assert len(list(empty.iterdir())) == 2


def test_shapes_of_configs():
    """What is left out follows from the rest; of a list, one a layer, the first counts; without heads there is none."""
    config = SimpleNamespace(num_attention_heads=4, hidden_size=64)
    assert autoselect.Shapes.of(config) == autoselect.Shapes(4, 4, 16, 64, 256)
    config = SimpleNamespace(num_attention_heads=[8, 4], num_key_value_heads=[2, 1], head_dim=32, hidden_size=64,
                             intermediate_size=[100, 200])  # fmt: skip
    assert autoselect.Shapes.of(config) == autoselect.Shapes(8, 2, 32, 64, 100)
    assert autoselect.Shapes.of(SimpleNamespace(hidden_size=64)) is None
    assert str(autoselect.choose_kernels("auto", None, CPU, torch.float32)) == FIRST


FORGED = [
    {"attention": {"blocks": 1.0}},
    {"attention": {"blocks": "no", "sdpa": 0.1}, "pointwise": {"plain": 0.1}},
    {"attention": {"nosuch": 0.1}, "pointwise": {"plain": 0.1}},
    {"attention": {}, "pointwise": {"plain": 0.1}},
]


@pytest.mark.parametrize("torn", ["", "{", "[]", *map(json.dumps, FORGED)])
def test_a_torn_file_is_measured_again(empty, monkeypatch, torn):
    whole = {"attention": {"blocks": 0.2}, "pointwise": {"plain": 0.1}}
    monkeypatch.setattr(autoselect, "measure", lambda *_: whole)
    autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    (path,) = empty.iterdir()
    path.write_text(torn)
    assert str(autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)) == FIRST
    assert files.read_cache(f"kernels/{path.name}", dict) == whole


def test_what_is_named_is_not_measured(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "measure", None)
    assert str(autoselect.choose_kernels("plain", SHAPES, CPU, torch.float32)) == FIRST
    named = "attention=sdpa pointwise=plain"
    assert str(autoselect.choose_kernels(named, SHAPES, CPU, torch.float32)) == named


def test_a_kernel_of_another_device_or_one_that_fails_is_said(monkeypatch):
    with pytest.raises(Unsupported, match="pointwise=liger is not for cpu, which has plain, compiled"):
        autoselect.choose_kernels("pointwise=liger", SHAPES, CPU, torch.float32)

    def no_compiler(kernel):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(pointwise, "of", no_compiler)
    with pytest.raises(Unsupported, match=r"pointwise=compiled does not run here: no C\+\+ compiler$"):
        autoselect.choose_kernels("pointwise=compiled", SHAPES, CPU, torch.float32)


def test_measuring_here(empty, monkeypatch):
    """Every kernel of the CPU has seconds, or with no compiler a reason; another part is not touched by that."""
    plain = pointwise.of("plain")

    def of(kernel):
        if kernel == "compiled":
            raise RuntimeError("no C++ compiler")
        return plain

    monkeypatch.setattr(pointwise, "of", of)
    measured = autoselect.measure(SHAPES, CPU, torch.float32)
    assert set(measured["attention"]) == {"blocks", "sdpa"}
    assert all(seconds > 0 for seconds in measured["attention"].values())
    assert measured["pointwise"]["plain"] > 0 and measured["pointwise"]["compiled"] == "no C++ compiler"


def test_nothing_is_chosen_where_a_part_is_emulated(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "_LONGEST_S", 0.0)
    chosen = autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    assert str(chosen) == FIRST and not chosen.notes


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


def test_without_liger_its_absence_is_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    reason = autoselect._try(lambda: pointwise._liger(), CPU)
    assert "liger_kernel" in reason


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


def test_attention_is_timed_over_several_lengths_each_new(monkeypatch):
    """So that what is prepared for a new length is in the median, for every kernel in the same lengths."""
    seen = {}

    def attend(kernel, query, key, value, alone):
        seen.setdefault(kernel, []).append(query.shape[2])
        return query + key + value

    monkeypatch.setattr(attention, "with_kernel", attend)
    monkeypatch.setitem(autoselect.LENGTHS, "cpu", autoselect.LENGTHS["cuda"])
    monkeypatch.setitem(autoselect.TOKENS, "cpu", 2048)
    autoselect.measure(replace(SHAPES, heads=2, kv_heads=2), CPU, torch.float32)
    for lengths in seen.values():
        assert len(set(lengths)) == len(lengths) == 2 + autoselect._ROUNDS
        assert lengths == seen["blocks"]


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
