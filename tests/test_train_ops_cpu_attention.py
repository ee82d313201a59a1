"""Attention in blocks: equal to attention spelled out, with its gradients, in every shape it is asked."""

import pytest
import torch

from harness.train.ops import cpu_attention


def spelled_out(query, key, value, scaling, window):
    """softmax(scaling Q K' where seen) V in the inputs' dtype, key heads repeated for the query heads they serve."""
    groups, tokens = query.shape[1] // key.shape[1], query.shape[2]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    behind = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    seen = (behind >= 0) & (behind < (window or tokens))
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~seen, float("-inf"))
    return torch.softmax(scores, -1) @ value


def parts(dtype, heads, key_heads, tokens, dim=16, batch=2):
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((batch, heads, tokens, dim), *[(batch, key_heads, tokens, dim)] * 2)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(attend, given, *options):
    given = [part.clone().requires_grad_() for part in given]
    out = attend(*given, *options)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (out.double() * weight).sum().backward()
    return out.detach(), *(part.grad for part in given)


@pytest.mark.parametrize("window", [None, 1, 20, 128, 200])
@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 300])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
def test_equals_attention_spelled_out(heads, key_heads, tokens, window):
    given = parts(torch.float64, heads, key_heads, tokens)
    blocks = gradients(cpu_attention.attend, given, 0.3, window)
    for ours, expected in zip(blocks, gradients(spelled_out, given, 0.3, window), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tokens", [100, 300])
def test_weights_computed_again_are_those_that_were_kept(tokens, monkeypatch):
    given = parts(torch.float32, 4, 2, tokens)
    kept = gradients(cpu_attention.attend, given, 0.3, None)
    monkeypatch.setattr(cpu_attention, "_MOST_KEPT", 0)
    for ours, expected in zip(gradients(cpu_attention.attend, given, 0.3, None), kept, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_in_16_bits_off_by_no_more_than_their_rounding(dtype, most, window):
    """Against float64 of the same rounded values, gradients included."""
    given = parts(dtype, 4, 2, 300)
    expected = gradients(spelled_out, [part.double() for part in given], 0.3, window)
    for ours, truth in zip(gradients(cpu_attention.attend, given, 0.3, window), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - truth).norm() / truth.norm() < most


def test_nothing_is_kept_where_no_gradient_is_wanted():
    with torch.no_grad():
        out = cpu_attention.attend(*parts(torch.float32, 4, 2, 50), 0.3)
    assert out.grad_fn is None and out.shape == (2, 4, 50, 16)
