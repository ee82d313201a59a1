"""What torch's default allocator keeps where lengths vary: its rules by hand, the replay, and what is made of it."""

import weakref
from dataclasses import replace

import pytest
from helpers.predictions import CARD, predicted
from helpers.records import cell

from bench import replay_allocator
from bench.replay_allocator import SEQUENCE, CachingAllocator, reserved_share
from harness.catalog.precisions import find
from harness.predict import op_trace, varied_lengths
from harness.predict.imported import peak_as_logged
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.records.imported import ImportedRun
from harness.records.stored import from_stored, to_stored
from harness.train import meta_model

MIB, GIB = 2**20, 2**30


def test_the_allocators_rules_by_hand():
    allocator = CachingAllocator()
    whole = allocator.make(100 * MIB)
    allocator.release(whole)
    # Two parts of a free segment, then the whole of it again: nothing new.
    parts = [allocator.make(40 * MIB), allocator.make(50 * MIB)]
    for part in parts:
        allocator.release(part)
    again = allocator.make(100 * MIB)
    assert allocator.reserved == 100 * MIB
    # In use, or too small: a new segment, of whole 2 MiB, and of 20 MiB for what is small.
    allocator.release(again)
    allocator.make(100 * MIB + 1)
    assert allocator.reserved == 202 * MIB
    allocator.make(60 * MIB)
    allocator.make(39 * MIB + 1)
    assert allocator.reserved == 202 * MIB
    allocator.make(5 * MIB)
    assert allocator.reserved == 222 * MIB


def test_one_length_keeps_little_and_growing_ones_keep_their_predecessors():
    once, often = (reserved_share([1024] * times, 32000) for times in (2, 9))
    assert 1.0 <= once == often < 1.25
    assert reserved_share([400, 800, 1600], 32000) > 1.4 * once
    # Shorter ones find room in what the longest has left.
    assert reserved_share([1600, 800, 400], 32000) == pytest.approx(once, rel=0.05)


def test_the_figures_are_the_replays():
    mean, log_sigma = replay_allocator.mean_and_log_sigma()
    assert pytest.approx(mean, rel=0.02) == varied_lengths.LOGITS_SPREAD
    assert log_sigma == pytest.approx(varied_lengths.LOG_SIGMA, abs=0.02)


def test_the_replayed_blocks_are_those_of_the_traced_step(monkeypatch):
    """Of a vocabulary that nothing else in the model is as wide as, in the loss of every token under autocast."""
    vocabulary, tokens, events, numbers = 1009, 96, [], {}

    class Recorder(op_trace.OpRecorder):
        def track(self, tensor):
            storage = tensor.untyped_storage()
            new = storage._cdata not in self.live and tensor.dim() > 1 and tensor.shape[-1] == self.vocab
            super().track(tensor)
            if new and storage.nbytes() >= 2 * tokens * vocabulary:
                numbers[storage._cdata] = number = len([made for *_, made in events if made])
                events.append((number, storage.nbytes() // (tokens * vocabulary), True))
                weakref.finalize(storage, events.append, (number, events[-1][1], False)).atexit = False

    monkeypatch.setattr(op_trace, "OpRecorder", Recorder)
    architecture = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
                    "num_attention_heads": 4, "vocab_size": vocabulary, "max_position_embeddings": 128}  # fmt: skip
    recipe = Recipe(lora_r=4, lora_alpha=8, implementation=REFERENCE, answer_share=1.0, gradient_checkpointing="all")
    model = meta_model.build_meta_model(ModelSpec("one", architecture, 128), find("bf16"), "bf16", recipe, "cuda")
    op_trace.trace(model, recipe, tokens, "cuda", "bf16")
    assert tuple(events) == SEQUENCE


def test_what_is_reserved_is_the_peak_and_the_kept_logits_and_never_more_than_the_card():
    """Logits of 1 GiB: 1.5 GiB in the peak, 3.9 reserved. The context is certain, all else is not."""
    peak = predicted(logits=GIB, activations=2 * GIB, weights=GIB)
    kept = varied_lengths.reserved(peak)
    assert kept.size - peak.peak_bytes == pytest.approx(2.4 * GIB)
    assert kept.factor > peak.memory_factor
    assert varied_lengths.reserved(predicted(logits=8 * GIB)).size == CARD.memory_bytes
    # What fits is told by the peak: blocks that are kept are given back.
    assert predicted(logits=3 * GIB).fits_memory()
    without = predicted(activations=2 * GIB)
    assert varied_lengths.reserved(without).size == without.peak_bytes
    on_cpu = predicted(logits=GIB, card=replace(CARD, kind="cpu", context_bytes=0))
    assert varied_lengths.reserved(on_cpu).size == on_cpu.peak_bytes


def test_a_logs_peak_is_compared_with_what_its_trainer_shows():
    one = predicted(logits=GIB, activations=2 * GIB)
    base = from_stored({"key": "a", "cell": to_stored(cell()), "step_s": 1.0, "tokens_per_step": 1.0, "steps": 1,
                        "peak_bytes": GIB, "peak_of": "reserved", "tool": "TRL"}, ImportedRun)  # fmt: skip
    own = one.peak_bytes - CARD.context_bytes
    assert not base.one_length  # of rows of before
    assert peak_as_logged(base, one) == pytest.approx(own + 2.4 * GIB)
    assert peak_as_logged(replace(base, one_length=True), one) == own
    assert peak_as_logged(replace(base, tool="Unsloth"), one) == own
    assert peak_as_logged(replace(base, peak_of="allocated"), one) == one.trace.memory.total
