"""The model and the step against references: transformers' own attention, loss and loading."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers.records import TINY
from transformers import AutoConfig, AutoModelForCausalLM

from harness.catalog import precisions
from harness.errors import Unsupported
from harness.records.cell import MLP, ModelSpec, Recipe
from harness.train import model as models
from harness.train import random_init
from harness.train.batches import Batch, random_batch
from harness.train.losses import answer_loss
from harness.train.ops.attention import NAME
from harness.train.step import TrainingStep

CPU = torch.device("cpu")
ARCHITECTURES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "phi": {"partial_rotary_factor": 0.5, "pad_token_id": 0},
    "phi3": {"pad_token_id": 0},
    "gemma3_text": {"sliding_window": 8},
}


def _spec(kind: str) -> ModelSpec:
    architecture = {
        **TINY,
        "model_type": kind,
        "tie_word_embeddings": kind not in ("phi", "phi3"),
        **ARCHITECTURES[kind],
    }
    if kind in ("phi", "phi3"):
        del architecture["head_dim"]
    return ModelSpec(kind, architecture, 256)


def _plain(kind: str, attention: str):
    architecture = dict(_spec(kind).architecture)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture.pop("model_type"), **architecture), attn_implementation=attention
    ).eval()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_plain_causal_attention_equals_transformers(kind):
    """Same weights, 40 tokens (past gemma's window of 8), two sequences: the same logits."""
    ids = torch.randint(0, 320, (2, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = (_plain(kind, name)(input_ids=ids, use_cache=False).logits for name in (NAME, "eager"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_answer_loss_equals_masked_labels(kind):
    """Logits of the answer alone give transformers' loss with every other label masked, and the same gradients."""
    ids = torch.randint(0, 320, (2, 30), generator=torch.Generator().manual_seed(4))
    labels = torch.where(torch.arange(30) >= 30 - 7, ids, -100)
    ours, theirs = _plain(kind, NAME), _plain(kind, "eager")
    loss = answer_loss(ours, Batch(ids, 7))
    reference = theirs(input_ids=ids, labels=labels, use_cache=False).loss
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    loss.backward()
    reference.backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_random_weights_build_what_transformers_builds(kind):
    """Same parameters and buffers by name and shape, buffers of the same values, heads tied alike, logits finite."""
    reference = _plain(kind, "eager")
    built = random_init.random_model(_spec(kind), precisions.find("fp32"), torch.float32, CPU)
    shapes = {name: p.shape for name, p in reference.named_parameters()}
    assert {name: p.shape for name, p in built.named_parameters()} == shapes
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(built.get_buffer(name), buffer)
    tied = built.get_input_embeddings().weight is built.get_output_embeddings().weight
    assert tied == _spec(kind).architecture["tie_word_embeddings"]
    for name, p in built.named_parameters():
        if p.dim() == 1:
            torch.testing.assert_close(p, reference.get_parameter(name), msg=name)
        else:
            assert 0.01 < p.std() < 0.03, name
    ids = torch.arange(20)[None]
    assert torch.isfinite(built(input_ids=ids, use_cache=False).logits).all()


CASES = [
    ("fp32", "fp32"),
    ("bf16", "bf16"),
    ("fp16", "fp16"),
    ("int8", "fp32"),
    ("int8", "bf16"),
    ("int8", "fp16"),
    ("int4", "fp32"),
    ("int4", "bf16"),
    ("int4", "fp16"),
]


@pytest.mark.parametrize("where", ["random", "disk"])
@pytest.mark.parametrize(("name", "compute"), CASES)
def test_every_precision_trains(name, compute, where, tiny_spec, tiny_folder):
    """Twelve updates at a high rate lower the loss of one batch; only the adapter moves, and it is fp32."""
    recipe = Recipe(learning_rate=3e-3, sequences_per_step=2)
    weights = "random" if where == "random" else str(tiny_folder)
    loaded = models.load(tiny_spec, precisions.find(name), compute, recipe, weights, CPU)
    assert loaded.params == 320 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64
    assert loaded.trainable_params == 2 * 32 * (4 * 64 + 64 + 64 + 32 + 32)
    trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all("lora" in n for n in trained)
    frozen = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if not p.requires_grad}
    step = TrainingStep(loaded.model, recipe, compute, CPU)
    assert (step.scaler is not None) == (compute == "fp16")
    batch = random_batch(320, 24, recipe, CPU, seed=0)
    losses = []
    for _ in range(13):
        losses += [step.micro_step(batch).item() for _ in range(recipe.micro_steps_per_step)]
        step.update()
    assert losses[-1] < losses[0] - 0.1
    for n, p in loaded.model.named_parameters():
        if n in frozen:
            assert torch.equal(p, frozen[n]), n


def test_weights_on_disk_are_the_weights_used(tiny_spec, tiny_folder):
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder)
    loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(), str(tiny_folder), CPU)
    batch = random_batch(320, 24, Recipe(), CPU, seed=0)
    torch.testing.assert_close(answer_loss(loaded.model, batch), answer_loss(reference, batch))


def test_four_bit_is_nf4_with_double_quantisation(tiny_spec, tiny_folder):
    import bitsandbytes as bnb

    for weights in ("random", str(tiny_folder)):
        loaded = models.load(tiny_spec, precisions.find("int4"), "bf16", Recipe(), weights, CPU)
        layers = [m for m in loaded.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
        assert len(layers) == 14  # seven matrices in each of two layers; not the head
        for layer in layers:
            state = layer.weight.quant_state
            assert (state.quant_type, state.nested, layer.compute_dtype) == ("nf4", True, torch.bfloat16)
        storages = [layer.weight.untyped_storage().data_ptr() for layer in layers]
        assert len(set(storages)) == len(layers)


def test_four_bit_trains_as_before_after_decoding(tiny_spec):
    """bitsandbytes repacks its matrices in eval mode on some CPUs, and has no backward for them then."""
    loaded = models.load(tiny_spec, precisions.find("int4"), "bf16", Recipe(), "random", CPU)
    batch, losses = random_batch(320, 24, Recipe(), CPU, seed=1), []
    for _ in range(2):
        answer_loss(loaded.model, batch).backward()
        losses.append([p.grad for p in loaded.model.parameters() if p.requires_grad])
        loaded.model.zero_grad(set_to_none=True)
        loaded.model.eval()
        with torch.no_grad():
            loaded.model(input_ids=batch.input_ids)
        loaded.model.train()
    for before, after in zip(*losses, strict=True):
        assert torch.equal(before, after)


def test_accumulated_micro_steps_equal_one_batch(tiny_spec):
    """Four sequences one by one, or as one micro-batch: the same gradients."""
    recipe = Recipe(sequences_per_step=4)
    grads = []
    for size in (1, 4):
        loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", recipe, "random", CPU, seed=0)
        step = TrainingStep(loaded.model, replace(recipe, micro_batch=size), "fp32", CPU)
        whole = random_batch(320, 24, Recipe(micro_batch=4), CPU, seed=1)
        for start in range(0, 4, size):
            step.micro_step(Batch(whole.input_ids[start : start + size], whole.answer_tokens))
        grads.append({n: p.grad for n, p in loaded.model.named_parameters() if p.requires_grad})
    for n in grads[0]:
        torch.testing.assert_close(grads[0][n], grads[1][n], rtol=1e-4, atol=1e-7, msg=n)


def test_checkpointing_changes_no_gradient(tiny_spec):
    batch = random_batch(320, 24, Recipe(), CPU, seed=1)
    gradients = []
    for mode in ("none", MLP, "all"):
        recipe = Recipe(gradient_checkpointing=mode)
        loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", recipe, "random", CPU, seed=0)
        TrainingStep(loaded.model, recipe, "fp32", CPU).micro_step(batch)
        gradients.append([p.grad for p in loaded.model.parameters() if p.requires_grad])
    for plain, *again in zip(*gradients, strict=True):
        for each in again:
            torch.testing.assert_close(each, plain)


def test_what_cannot_be_built_says_so(tiny_spec, tmp_path):
    odd = ModelSpec("odd", {"model_type": "no-such-thing"}, 256)
    with pytest.raises(Unsupported, match="cannot build"):
        random_init.on_meta(odd, torch.float32)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Unsupported, match="do not load"):
        models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(), str(tmp_path), CPU)


def test_a_mask_is_refused():
    with pytest.raises(ValueError, match="mask"):
        _plain("llama", NAME)(input_ids=torch.arange(4)[None], attention_mask=torch.ones(1, 1, 4, 4).bool())


def test_loading_prints_nothing_of_bitsandbytes():
    """peft imports bitsandbytes, which warns of the hub's kernels that are not installed, and which decorates functions
    with torch.compile. In a process of its own, for the warning comes once, and Inductor is not imported twice."""
    program = """
import sys
from harness.catalog import models, precisions, weights
from harness.records.cell import Recipe
from harness.train.model import load
import torch
spec = models.load().find("arc-tiny")
load(spec, precisions.find("int4"), "fp32", Recipe(kernels="plain"), weights.RANDOM, torch.device("cpu"))
assert "bitsandbytes" in sys.modules and "torch._inductor.compile_fx" not in sys.modules
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""


def _changed(folder, tmp_path, **config):
    """A copy of the model in `folder` with other values in its config.json."""
    path = shutil.copytree(folder, tmp_path / "copy")
    raw = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(raw | config))
    return path


def test_an_attention_that_would_be_fetched_is_not(tiny_spec, tiny_folder, tmp_path):
    path = _changed(tiny_folder, tmp_path, _attn_implementation="org/kernel")
    loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(), str(path), torch.device("cpu"))
    assert "/" not in str(loaded.model.config._attn_implementation)
    loss = TrainingStep(loaded.model, Recipe(), "fp32", torch.device("cpu")).micro_step(
        random_batch(320, 16, Recipe(), torch.device("cpu"), 0)
    )
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: (path / "model.safetensors").write_bytes(b"\x07" * 9999), "do not load"),
        (lambda path: os.truncate(path / "model.safetensors", 3000), "do not load"),
        (lambda path: (path / "config.json").write_text("[]"), "do not load"),
        (lambda path: (path / "config.json").write_bytes('{"a": 1}'.encode("utf-16")), "do not load"),
    ],
    ids=["noise", "cut", "a list", "UTF-16"],
)
def test_broken_weights_are_a_sentence(tiny_spec, tiny_folder, tmp_path, spoil, why):
    path = _changed(tiny_folder, tmp_path)
    spoil(path)
    with pytest.raises(Unsupported, match=why):
        models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(), str(path), torch.device("cpu"))


def test_weights_that_are_quantised_already_are_refused(tiny_spec, tiny_folder, tmp_path):
    path = _changed(tiny_folder, tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(Unsupported, match="quantised already"):
        models.load(tiny_spec, precisions.find("fp32"), "fp32", Recipe(), str(path), torch.device("cpu"))
