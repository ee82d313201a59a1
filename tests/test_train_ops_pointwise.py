"""Pointwise kernels compute the same: torch's operations, those compiled, and Liger's (by stand-ins)."""

import sys
from types import ModuleType

import pytest
import torch

from harness.train.compat import quiet
from harness.train.ops import pointwise


def _values(of, dtype):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    x, gate, up = random(2, 5, 24), random(2, 5, 36), random(2, 5, 36)
    weight = random(24).detach()
    values = []
    outs = [(of.norm(x, weight, 1e-6, twice), [x]) for twice in (True, False)]
    for out, given in [*outs, (of.silu(gate, up), [gate, up]), (of.gelu(gate, up), [gate, up])]:
        assert out.dtype == dtype
        slopes = torch.linspace(-1, 1, out.numel()).view(out.shape).to(dtype)
        values += [out.detach(), *torch.autograd.grad(out, given, slopes)]
    return values


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_is_the_same_to_within_rounding(dtype, off):
    with quiet():
        compiled = _values(pointwise.of("compiled"), dtype)
    for a, b in zip(compiled, _values(pointwise.of("plain"), dtype), strict=True):
        torch.testing.assert_close(a, b, rtol=off, atol=off)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_fused_is_the_same_to_within_rounding_and_one_operation(dtype, off):
    for a, b in zip(_values(pointwise.of("fused"), dtype), _values(pointwise.of("plain"), dtype), strict=True):
        torch.testing.assert_close(a, b, rtol=off, atol=off)
    x = torch.randn(2, 5, 24, dtype=dtype, requires_grad=True)
    norms = [pointwise.of("fused").norm(x, torch.ones(24, dtype=kind), 1e-6, False) for kind in (dtype, torch.float64)]
    # A weight of another dtype is for our own operations: torch would take its kernel apart.
    assert ["RmsNorm" in type(norm.grad_fn).__name__ for norm in norms] == [False, True]


class _LigersNorm(torch.autograd.Function):
    """Takes what Liger's takes, and computes what its documentation says, by torch."""

    @staticmethod
    def forward(ctx, x, w, eps, offset=0.0, casting_mode="llama", in_place=True):
        assert not in_place
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            wide = ctx.x.float()
            normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
            ctx.out = normed.to(x.dtype) * w if casting_mode == "llama" else (normed * (offset + w.float())).to(x.dtype)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx, grad):
        return *torch.autograd.grad(ctx.out, ctx.x, grad), None, None, None, None, None


def test_liger_is_asked_for_the_same(monkeypatch):
    """With functions of Liger's signatures in its place, for it needs a card: which casts, not in place."""

    class Silu:
        apply = staticmethod(lambda a, b: torch.nn.functional.silu(a) * b)

    class Gelu:
        apply = staticmethod(lambda a, b: torch.nn.functional.gelu(a, approximate="tanh") * b)

    stand_ins = {
        "rms_norm": {"LigerRMSNormFunction": _LigersNorm},
        "swiglu": {"LigerSiLUMulFunction": Silu},
        "geglu": {"LigerGELUMulFunction": Gelu},
    }
    for name in ("liger_kernel", "liger_kernel.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, members in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, f"liger_kernel.ops.{name}", module)
    actual, expected = (_values(of, torch.float32) for of in (pointwise._liger(), pointwise.of("plain")))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
