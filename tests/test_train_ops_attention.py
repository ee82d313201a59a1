"""Packed sequences attend each alone; those of one length by one call of the kernel."""

from types import SimpleNamespace

import pytest
import torch

from harness.train.ops import attention

LENGTHS = (7, 5, 5, 5, 3, 3)


def _attended(lengths, kernel, window=None, parts=None):
    module = SimpleNamespace(config=SimpleNamespace(**{attention._KERNEL: kernel}))
    return attention.plain_causal(module, *parts, None, sliding_window=window, packed_lengths=lengths)[0]


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(("kernel", "calls"), [("sdpa", 3), ("blocks", 6)])
def test_packed_is_each_alone(monkeypatch, kernel, calls, window):
    torch.manual_seed(0)
    parts = [torch.randn(1, heads, sum(LENGTHS), 8, requires_grad=True) for heads in (4, 2, 2)]
    alone = [_attended(None, kernel, window, one) for one in zip(*(p.split(LENGTHS, 2) for p in parts), strict=True)]
    expected, slopes = torch.cat(alone, 1), torch.linspace(-1, 1, 4 * 8 * sum(LENGTHS))
    made, attend = [], attention._attend
    monkeypatch.setattr(attention, "_attend", lambda *args: made.append(args) or attend(*args))
    packed = _attended(LENGTHS, kernel, window, parts)
    assert len(made) == calls
    torch.testing.assert_close(packed, expected)
    ours, theirs = (torch.autograd.grad(out.flatten(), parts, slopes) for out in (packed, expected))
    torch.testing.assert_close(ours, theirs)
