"""The trace against counts by hand, against a real step's, and across the kinds of model, precision and device."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from harness.catalog import accelerators
from harness.catalog.optimizers import OPTIMIZERS
from harness.catalog.precisions import PRECISIONS, find
from harness.errors import Unsupported
from harness.predict import op_trace as tracing
from harness.predict import prediction, roofline
from harness.predict.roofline import ATTENTION, DEQUANTIZE, FUSED_4BIT, Trace
from harness.records.cell import DORA, FULL, MLP, REFERENCE, ModelSpec, Recipe
from harness.records.stored import from_stored, to_stored
from harness.train import meta_model
from harness.train.batches import random_batch
from harness.train.losses import answer_loss
from harness.train.model import load
from harness.train.ops.attention import forget_masks
from harness.train.step import TrainingStep

RECIPE = Recipe(lora_r=4, lora_alpha=8, answer_share=0.25, kernels="plain")


def traced(spec, precision="fp32", compute=None, recipe=RECIPE, context=64, kind="cuda"):
    compute = compute or find(precision).compute or "bf16"
    return tracing.trace(
        meta_model.build_meta_model(spec, find(precision), compute, recipe, kind), recipe, context, kind
    )


def test_standing_memory_by_hand(tiny_spec):
    """Two layers of 64 wide, 128 inside, 4 heads of 16 over 2, 320 tokens tied, in fp32: the embeddings 320 x 64, a
    layer's q 64 x 64, k and v 32 x 64 each, o 64 x 64, the MLP 3 x 64 x 128 and two norms of 64, a norm at the end; the
    rotary frequencies are buffers (8 values, kept twice). Adapters of rank 4: q and o (64 + 64) x 4, k and v
    (64 + 32) x 4."""
    micro_step = traced(tiny_spec)
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64
    params, adapters = 320 * 64 + 2 * layer + 64, 2 * (2 * 128 * 4 + 2 * 96 * 4)
    assert (micro_step.params, micro_step.trainable) == (params, adapters)
    assert micro_step.memory.weights == pytest.approx(4 * params, abs=2 * 8 * 4)
    assert micro_step.memory.adapters == micro_step.memory.gradients == 4 * adapters
    assert micro_step.memory.optimizer == 2 * 4 * adapters


def test_flops_are_those_that_are_counted_elsewhere(tiny_spec):
    """Attention apart, which is counted by halves here, against torch's own counter on the same step; products in
    place, which that one leaves out, are LoRA's."""
    from harness.predict.flops import count_flops

    work, _ = count_flops(tiny_spec, RECIPE)
    micro_step = traced(tiny_spec, context=1000)
    linear = sum(op.flops * op.count for op in micro_step.ops if op.kind != ATTENTION)
    assert linear == pytest.approx((work.forward_linear + work.backward_linear) * 1000, rel=0.08)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_peak_of_a_real_step(tiny_spec, precision):
    """Live tensors of a real micro-step on the CPU, seen by the same watch with real storage, are what was traced."""
    loaded = load(tiny_spec, find(precision), precision, RECIPE, "random", torch.device("cpu"))
    step = TrainingStep(loaded.model, RECIPE, precision, torch.device("cpu"))
    batch = random_batch(320, 200, RECIPE, torch.device("cpu"), 0)
    step.micro_step(batch)  # gradients are there from now on
    forget_masks()
    watch = tracing.OpRecorder(320)
    with watch:
        loss = answer_loss(loaded.model, batch)
        watch.backward = True
        loss.backward()
    expected = traced(tiny_spec, precision, context=200, kind="cpu")
    assert expected.memory.total - expected.memory.persistent == pytest.approx(watch.peak_bytes, rel=0.02)
    assert expected.flops == pytest.approx(sum(key[3] * n for key, n in watch.ops.items()), rel=1e-6)


@pytest.mark.parametrize("adapter_dtype", ["fp32", "bf16"])
def test_the_reference_step_is_traced_as_autocast_runs_it(tiny_spec, adapter_dtype):
    """What torch.autocast really multiplies and holds on a CPU, with checkpointing, dtype by dtype, is what is traced:
    no product in fp32, whatever the adapter's dtype."""
    recipe = replace(RECIPE, implementation=REFERENCE, gradient_checkpointing="all", adapter_dtype=adapter_dtype)
    loaded = load(tiny_spec, find("bf16"), "bf16", recipe, "random", torch.device("cpu"))
    batch = random_batch(320, 200, recipe, torch.device("cpu"), 0)
    step = TrainingStep(loaded.model, recipe, "bf16", torch.device("cpu"))
    step.micro_step(batch)
    watch = tracing.OpRecorder(320)
    with watch:
        loss = step.loss_of(loaded.model, batch)
        watch.backward = True
        loss.backward()
    model = meta_model.build_meta_model(tiny_spec, find("bf16"), "bf16", recipe, "cpu")
    expected = tracing.trace(model, recipe, 200, "cpu", "bf16")
    products = Counter()
    for kind, _, dtype, flops, *_ in watch.ops.elements():
        if kind != ATTENTION and flops:
            products[dtype] += flops
    planned = Counter()
    for op in expected.ops:
        if op.kind != ATTENTION and op.flops:
            planned[op.dtype] += op.flops * op.count
    assert planned == pytest.approx(products) and set(products) == {"bf16"}
    assert expected.memory.total - expected.memory.persistent == pytest.approx(watch.peak_bytes, rel=0.05)
    assert 0 < expected.by_engine < sum(op.count for op in expected.ops)


def test_a_prepared_base_is_wide_between_its_matrices(tiny_spec):
    """PEFT's preparation makes embeddings, head and norms fp32, and with them what layers hand on; products stay."""
    recipe = replace(RECIPE, implementation=REFERENCE, gradient_checkpointing="all")
    plain, prepared = (
        tracing.trace(
            meta_model.build_meta_model(tiny_spec, find("int4"), "bf16", each, "cuda"), each, 128, "cuda", "bf16"
        )
        for each in (recipe, replace(recipe, prepared_for_kbit=True))
    )
    unquantised = 320 * 64 + 5 * 64
    assert prepared.memory.weights - plain.memory.weights == pytest.approx(2 * unquantised, abs=100)
    made = [trace.memory.total - trace.memory.persistent for trace in (plain, prepared)]
    assert made[1] > 1.1 * made[0]
    assert {op.dtype for op in prepared.ops if op.flops} == {"bf16"}


def test_the_update_may_be_the_peak(tiny_spec):
    """An AdamW of one operation after the other makes two more tensors per value; masters are fp32 copies."""
    recipe = replace(RECIPE, lora_r=64)
    fused, foreach, eight, masters = (
        traced(tiny_spec, "bf16", recipe=replace(recipe, optimizer=name, adapter_dtype="bf16")).memory
        for name in OPTIMIZERS
    )
    assert fused.optimizer == 2 * fused.adapters and fused.update == 0
    assert foreach.update == 2 * fused.adapters and eight.optimizer == fused.adapters
    assert masters.optimizer == (4 + 8) // 2 * fused.adapters
    late = replace(foreach, activations=1, temporaries=0, logits=0)
    assert late.total == late.persistent + late.update


def test_fused_attention_holds_nothing_of_tokens_times_tokens(tiny_spec):
    short, long = (traced(tiny_spec, context=n).memory.transient for n in (128, 256))
    assert long < 2.05 * short
    spec = replace(tiny_spec, architecture=tiny_spec.architecture | {"max_position_embeddings": 4096})
    flops = {
        n: sum(op.flops * op.count for op in traced(spec, context=n).ops if op.kind == ATTENTION) for n in (512, 1024)
    }
    assert flops[1024] == pytest.approx(4 * flops[512], rel=0.01)


def test_four_bit_weights_are_packed_with_their_constants(tiny_spec):
    """Each matrix of n values: n / 2 bytes, n / 64 bytes of scales, n / 64 / 256 fp32 ones, and two code tables (16 and
    256 values of fp32). Embeddings, head and norms keep 16 bits."""
    packed = traced(tiny_spec, "int4")
    shapes = 2 * [64 * 64, 64 * 64, 32 * 64, 32 * 64, 64 * 128, 64 * 128, 64 * 128]
    constants = sum(n // 64 + 4 * -(-(n // 64) // 256) + 4 * (16 + 256) for n in shapes)
    assert packed.memory.constants == constants
    assert packed.memory.weights == pytest.approx(sum(shapes) // 2 + 2 * (320 * 64 + 5 * 64), abs=100)
    assert packed.params == traced(tiny_spec).params
    # Forward, the card decides how to multiply; backward the matrices are always dequantised.
    assert {op.backward for op in packed.ops if op.kind == FUSED_4BIT} == {False}
    assert {op.backward for op in packed.ops if op.kind == DEQUANTIZE} == {True}
    assert {op.shape[1:] for op in packed.ops if op.kind == FUSED_4BIT} == {(32, 64), (64, 64), (64, 128), (128, 64)}
    two_steps = roofline.as_run(packed.ops, accelerators.find("v100"))
    assert {op.backward for op in two_steps if op.kind == DEQUANTIZE} == {False, True}


def test_four_bit_constants_without_double_quantisation(tiny_spec):
    """fp32 scales, 4 n / 64 bytes, and one code table of 16 fp32 values for each matrix of n values."""
    single = replace(find("int4"), quantization=replace(find("int4").quantization, double=False))
    shapes = 2 * [64 * 64, 64 * 64, 32 * 64, 32 * 64, 64 * 128, 64 * 128, 64 * 128]
    trace = tracing.trace(meta_model.build_meta_model(tiny_spec, single, "bf16", RECIPE, "cuda"), RECIPE, 64, "cuda")
    assert trace.memory.constants == sum(4 * n // 64 + 4 * 16 for n in shapes)


@pytest.mark.parametrize("kind", ["cuda", "cuda-7", "cuda-7-math", "cpu"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_every_precision_on_every_kind(tiny_spec, precision, kind):
    micro_step = traced(tiny_spec, precision, kind=kind)
    assert micro_step.flops > 0 and micro_step.memory.transient > 0
    assert {op.dtype for op in micro_step.ops if op.flops} <= {found_dtype(precision), "fp32"}


def found_dtype(precision):
    return find(precision).compute or "bf16"


@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "gemma3_text", "qwen3", "phi"])
def test_other_architectures_need_no_code(model_type):
    architecture = {"model_type": model_type, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 256,
            "head_dim": 16, "pad_token_id": 0, "sliding_window": 32}  # fmt: skip
    micro_step = traced(ModelSpec("other", architecture, 256), "bf16")
    assert micro_step.flops > 0 and micro_step.memory.activations > 0


def test_checkpointing_trades_memory_for_flops(tiny_spec):
    deep = replace(tiny_spec, architecture=tiny_spec.architecture | {"num_hidden_layers": 8})
    plain, mlps, again = (
        traced(deep, recipe=replace(RECIPE, gradient_checkpointing=part), context=256) for part in ("none", MLP, "all")
    )
    assert again.memory.transient < 0.5 * plain.memory.transient
    assert again.flops > 1.15 * plain.flops
    # Gate and up are made twice: their FLOPs once more in the forward, and their results are not held.
    architecture, tokens = deep.architecture, 256
    products = 2 * 2 * tokens * architecture["hidden_size"] * architecture["intermediate_size"]
    assert mlps.flops - plain.flops == pytest.approx(7 * products, rel=0.1)  # the last layer's is for the answer alone
    held = 2 * tokens * architecture["intermediate_size"] * 4
    less = plain.memory.transient - mlps.memory.transient
    # Their input is, of all but the last layer, and where most is held one layer's gate and up are made again.
    assert less == pytest.approx(7 * (held - tokens * architecture["hidden_size"] * 4) - held, rel=0.05)


def test_logits_of_every_token_fill_the_reference_step(tiny_spec):
    own, reference = (
        traced(tiny_spec, recipe=replace(RECIPE, implementation=i), context=256) for i in ("own", "reference")
    )
    assert reference.memory.logits >= 4 * own.memory.logits > 0


def test_dora_and_full_fine_tuning(tiny_spec):
    lora, dora, full = (traced(tiny_spec, recipe=replace(RECIPE, method=m)) for m in ("lora", DORA, FULL))
    assert dora.trainable > lora.trainable and dora.flops > lora.flops
    assert full.trainable == full.params == lora.params
    assert full.memory.gradients == full.memory.weights - 2 * 8 * 4 and full.memory.adapters == 0
    assert full.memory.optimizer == 2 * full.memory.gradients
    with pytest.raises(Unsupported, match="not quantised"):
        traced(tiny_spec, "int4", recipe=replace(RECIPE, method=FULL))


def test_what_preparing_for_kbit_widens(tiny_spec):
    plain, widened = (
        traced(tiny_spec, "int4", recipe=replace(RECIPE, prepared_for_kbit=prepared)) for prepared in (False, True)
    )
    assert widened.memory.weights - plain.memory.weights == pytest.approx(2 * (320 * 64 + 5 * 64), abs=100)


def test_a_trace_survives_json(tiny_spec):
    micro_step = traced(tiny_spec)
    stored = json.loads(json.dumps(to_stored(micro_step)))
    assert from_stored(stored, Trace) == micro_step
    # As earlier versions kept it.
    assert from_stored({**stored, "ops": [list(op.values()) for op in stored["ops"]]}, Trace) == micro_step
    bf16 = traced(tiny_spec, "bf16")
    assert {op.dtype for op in bf16.computed_in("fp16").ops} == {"fp16", "fp32"}


def test_nothing_is_exchanged_afterwards(tiny_spec):
    before = torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.dropout
    model = meta_model.build_meta_model(tiny_spec, find("fp32"), "fp32", RECIPE, "cuda")
    tracing.trace(model, RECIPE, 32, "cuda")
    assert (torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.dropout) == before
    assert all(p.grad is None for p in model.parameters())


def test_bf16_before_compute_capability_8_holds_tokens_times_tokens(tiny_spec):
    """No fused kernel takes it there: every layer keeps its 4 heads' weights, 256 x 256 in fp32, for the backward, and
    a mask as large is made. In fp16 the same card has a kernel."""
    tokens, heads, layers = 256, 4, 2
    fused, math = (traced(tiny_spec, "bf16", context=tokens, kind=kind) for kind in ("cuda-7", "cuda-7-math"))
    kept = layers * heads * tokens * tokens * 4
    assert math.memory.transient > fused.memory.transient + kept
    assert math.memory.transient < fused.memory.transient + 3 * kept
    # Quadratic in tokens, where the fused kernel's memory is linear.
    longer = traced(tiny_spec, "bf16", context=2 * tokens, kind="cuda-7-math")
    assert longer.memory.transient > 3 * math.memory.transient
    windowed = {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 256,
                "head_dim": 16, "pad_token_id": 0, "sliding_window": 32}  # fmt: skip
    assert traced(ModelSpec("windowed", windowed, 256), "bf16", kind="cuda-7-math").memory.transient > 0


@pytest.mark.parametrize(
    ("card", "precision", "kind"),
    [("t4", "bf16", "cuda-7-math"), ("t4", "fp16", "cuda-7"), ("t4", "fp32", "cuda-7"), ("t4", "int4", "cuda-7"),
     ("v100", "bf16", "cuda-7-math"), ("l4", "bf16", "cuda"), ("l4", "int4", "cuda")],
)  # fmt: skip
def test_which_attention_a_cell_is_traced_with(tiny_spec, card, precision, kind):
    assert prediction.trace_key(tiny_spec, find(precision), RECIPE, accelerators.find(card), 64).kind == kind
