"""Heads that share keys attend together: as transformers' own attention, and in the steps of a static cache alone."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.tune import decode_attention
from harness.tune.decode_slots import Slots


def _inputs(heads, key_heads, tokens, columns=9, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, heads, tokens, 8, generator=generator)
    key, value = (torch.randn(3, key_heads, columns, 8, generator=generator) for _ in range(2))
    mask = torch.rand(3, 1, tokens, columns, generator=generator) > 0.4
    mask[..., 0] = True
    return query.to(dtype), key.to(dtype), value.to(dtype), mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("heads", "key_heads", "tokens"), [(6, 2, 1), (6, 2, 4), (6, 1, 3), (4, 4, 3)])
def test_the_same_as_transformers_own(heads, key_heads, tokens, scaling, dtype):
    inputs = _inputs(heads, key_heads, tokens, dtype=dtype)
    module = SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True)
    ours, _ = decode_attention.grouped_heads(module, *inputs, scaling=scaling)
    theirs, _ = sdpa_attention_forward(module, *inputs, scaling=scaling)
    assert ours.shape == theirs.shape == (3, tokens, heads, 8)
    assert (ours - theirs).abs().max() <= (1e-6 if dtype == torch.float32 else 2e-2)


def test_a_mask_of_numbers_too():
    query, key, value, mask = _inputs(6, 2, 4)
    numbers = torch.zeros(mask.shape).masked_fill(~mask, -1e9)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    ours, _ = decode_attention.grouped_heads(module, query, key, value, numbers)
    assert torch.allclose(ours, decode_attention.grouped_heads(module, query, key, value, mask)[0], atol=1e-6)


def test_steps_alone_attend_so_and_the_model_is_afterwards_what_it_was(monkeypatch):
    """Keys reach the kernel as they are in the cache, with no copy per head."""
    config = LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    kernel, key_heads = torch.nn.functional.scaled_dot_product_attention, []

    def counted(query, key, *args, **options):
        key_heads.append(key.shape[1])
        return kernel(query, key, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    logits = {}
    with torch.no_grad():
        for grouped in (True, False):
            slots = Slots(model, 2, 16, gaps=True, grouped=grouped)
            slots.read([[1, 2, 3, 4, 5]])
            slots.read([[6, 7, 8]])
            key_heads.clear()
            logits[grouped] = slots.step([[9, 10, 11], [12, 13, 14]])
            assert key_heads == [2 if grouped else 4] * 2
            assert model.config._attn_implementation == "sdpa"
    assert torch.allclose(logits[True], logits[False], atol=1e-5)
