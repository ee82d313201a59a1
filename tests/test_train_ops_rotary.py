"""Rotary embeddings of our own stand only where a family's function computes the same."""

import pytest
import torch
from transformers.models.cohere.modeling_cohere import CohereAttention, CohereConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaConfig, apply_rotary_pos_emb

from harness.train.ops import rotary

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 16}


def _learned(rotate, q, k, cos, sin):
    inputs = [part.clone().requires_grad_() for part in (q, k)]
    outs = rotate(*inputs, cos, sin)
    return [*outs, *torch.autograd.grad(outs, inputs, [torch.linspace(-1, 1, o.numel()).view_as(o) for o in outs])]


def test_values_and_gradients_are_transformers():
    torch.manual_seed(0)
    q, k, cos, sin = (torch.randn(shape) for shape in ((1, 4, 5, 8), (1, 2, 5, 8), (1, 5, 8), (1, 5, 8)))
    rotate = rotary.forward_of(LlamaAttention(LlamaConfig(**SIZES), 0)).__globals__[rotary.NAME]
    assert rotate is not apply_rotary_pos_emb
    for ours, theirs in zip(
        _learned(rotate, q, k, cos, sin), _learned(apply_rotary_pos_emb, q, k, cos, sin), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_rotated_share_of_the_dimensions_is_left_to_transformers():
    """Where cos is narrower than the heads, a family's own function passes the others on; Llama's raises."""
    rotate = rotary.forward_of(LlamaAttention(LlamaConfig(**SIZES), 0)).__globals__[rotary.NAME]
    q, k, cos = torch.zeros(1, 4, 5, 8), torch.zeros(1, 2, 5, 8), torch.ones(1, 5, 6)
    with pytest.raises(RuntimeError, match="must match the size"):
        rotate(q, k, cos, cos)


def test_neighbours_that_rotate_together_are_another_rotation():
    assert rotary.forward_of(CohereAttention(CohereConfig(**SIZES), 0)) is None


def test_a_forward_that_was_replaced_before_stays():
    attention = LlamaAttention(LlamaConfig(**SIZES), 0)
    attention.forward = lambda *_, **__: None
    assert rotary.forward_of(attention) is None
