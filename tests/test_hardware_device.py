"""Device, probe, memory and FLOPs: the parts of profiling that need torch."""

import mmap
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.catalog import precisions
from harness.errors import UserError
from harness.hardware import device, driver, peak_memory, probe
from harness.predict import flops
from harness.predict.cells import Judgement
from harness.records.cell import Recipe
from harness.records.measurement import MatmulSpeed
from harness.records.stored import to_stored
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.losses import answer_loss

CPU = torch.device("cpu")


ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]  # torch 2.13 for CUDA 13.0


def _cuda(*names, capability=(7, 5)):
    major, minor = capability
    cards = [SimpleNamespace(name=name, total_memory=15 << 30, major=major, minor=minor) for name in names]
    return SimpleNamespace(
        is_available=lambda: bool(cards),
        device_count=lambda: len(cards),
        get_device_properties=lambda i: cards[i],
        get_arch_list=lambda: ARCHITECTURES,
    )


def test_two_cards_one_of_them_idle():
    chosen = device.choose_device("auto", _cuda("Tesla T4", "Tesla T4"))
    assert (chosen.id, chosen.name, chosen.capability) == ("cuda:0", "Tesla T4", "7.5")
    assert chosen.others == ("cuda:1 Tesla T4",)
    assert device.choose_device("cuda:1", _cuda("Tesla T4", "Tesla T4")).others == ("cuda:0 Tesla T4",)
    assert device.choose_device("cuda", _cuda("L4")).id == "cuda:0"


def test_cards_that_share_steps_are_named_for_the_lock():
    chosen = device.choose_device("auto", _cuda("Tesla T4", "Tesla T4", "Tesla T4"), gpus=2)
    assert (chosen.uuid, chosen.partners, chosen.others) == ("0", ("1",), ("cuda:2 Tesla T4",))


def test_a_device_that_is_not_there():
    with pytest.raises(UserError, match=r"--device cuda:1: .*--device cpu"):
        device.choose_device("cuda:1", _cuda())
    with pytest.raises(UserError, match="numbered from 0"):
        device.choose_device("cuda:2", _cuda("L4", "L4"))


@pytest.mark.parametrize("requested", ["auto", "cuda", "cuda:1"])
def test_a_card_that_torch_cannot_use_is_not_passed_over(requested, monkeypatch):
    """Hours on the CPU of a machine with a card are nobody's wish; the CPU is used where it is named."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    old = driver.Driver("550.54.15", ("Tesla T4", "Tesla T4"))
    with pytest.raises(
        UserError, match=r"Tesla T4, driver 550.54.15.* CUDA 13.0; .*whl/cu126.* --device cpu"
    ) as refused:
        device.choose_device(requested, _cuda(), look=lambda: old)
    assert "\n" not in str(refused.value)
    assert device.choose_device("cpu", _cuda(), look=lambda: old).id == "cpu"


def test_cards_that_the_user_hides_are_not_looked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.choose_device("auto", _cuda(), look=lambda: pytest.fail("looked for")).id == "cpu"
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES hides every device|without CUDA"):
        device.choose_device("cuda", _cuda())


def test_a_machine_without_a_card_uses_its_cpu():
    assert device.choose_device("auto", _cuda(), look=lambda: None).id == "cpu"


@pytest.mark.parametrize(("name", "capability"), [("Tesla P100-PCIE-16GB", (6, 0)), ("Tesla V100-SXM2-16GB", (7, 0))])
def test_a_card_that_this_torch_has_no_kernels_for(name, capability):
    message = rf"{name} .*has no kernels for it; .*torch<2.11.*whl/cu126"
    with pytest.raises(UserError, match=message):
        device.choose_device("auto", _cuda(name, capability=capability))
    assert device.choose_device("cpu", _cuda(name, capability=capability)).id == "cpu"


def test_the_cpu_has_a_name_and_memory():
    chosen = device.choose_device("cpu")
    assert "threads" in chosen.name
    assert 1 << 28 < chosen.total_bytes < 1 << 45


def test_a_dtype_is_native_where_it_beats_fp32():
    """T4: fp16 65 against fp32's 8 TFLOP/s, bf16 emulated on a par. A CPU without 16-bit units: 100 times slower."""
    t4 = MatmulSpeed(8e12, 8e12, True)
    assert probe.is_native(MatmulSpeed(40e12, 40e12, True), t4)
    assert not probe.is_native(MatmulSpeed(8e12, 7e12, True), t4)
    assert not probe.is_native(MatmulSpeed(120e9, 1e9, True), MatmulSpeed(60e9, 60e9, True))
    assert MatmulSpeed(120e9, 40e9, True).combined == pytest.approx(60e9)  # harmonic: 2 / (1/120 + 1/40)


def test_the_probe_measures_this_machine():
    rates = probe.rates(CPU, ("fp32", "bf16"))
    assert set(rates) == {"fp32", "bf16"}
    assert rates["fp32"].native
    assert 1e8 < rates["fp32"].combined < 1e14


def test_a_dtype_that_the_device_refuses_is_left_out(monkeypatch):
    monkeypatch.setitem(probe.TORCH_DTYPES, "bf16", torch.bool)  # no product of bool on a CPU
    assert "bf16" not in probe.rates(CPU, ("bf16",))


def test_a_device_without_fp32_is_refused_even_where_its_error_has_no_message():
    def fail():
        raise RuntimeError

    with pytest.raises(UserError, match="cannot multiply matrices: RuntimeError; try another"):
        probe.rates(CPU, (), clock=fail)


def test_peak_memory_sees_what_was_let_go():
    """Mapped by hand, for the heap may keep what is freed (harness.train.heap)."""
    peak = peak_memory.PeakMemory(CPU)
    peak.reset()
    before = peak.read()["resident"]
    with mmap.mmap(-1, 256 << 20) as block:
        block.write(b"1" * (256 << 20))
    seen = peak.read()["resident"]
    assert seen - before > 200 << 20
    peak.reset()
    assert peak.read()["resident"] < seen - (150 << 20)


@pytest.mark.parametrize("length", [40, 200])
def test_counted_flops_are_those_of_the_real_step(tiny_spec, length):
    """The two coefficients, found without a device, give what FlopCounterMode counts on the real model at a length
    that was not traced. Attention in blocks leaves out what is masked, so the real side runs torch's plain form."""
    recipe = Recipe()
    work, params = flops.count_flops(tiny_spec, recipe)
    loaded = models.load(tiny_spec, precisions.find("fp32"), "fp32", recipe, "random", CPU)
    loaded.model.get_base_model().set_attn_implementation("sdpa")
    assert params == loaded.params
    batch = random_batch(320, length, recipe, CPU, seed=0)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        loss = answer_loss(loaded.model, batch)
        forward = counter.get_total_flops()
        loss.backward()
    # One answer token more or less at lengths where 12 % is no whole number.
    assert work.forward(length) == pytest.approx(forward, rel=0.01)
    assert work.total(length) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_lora_costs_four_flops_a_parameter_not_six(shipped):
    """smollm2-135m: 106.2 M parameters in the body, and the 28.3 M of the head for 12 % of the tokens."""
    spec = shipped.find("smollm2-135m")
    work, params = flops.count_flops(spec, Recipe(lora_r=1))
    seen = params - 49152 * 576 * (1 - 0.12)
    per_token = (work.forward_linear + work.backward_linear) / seen
    assert 3.9 < per_token < 4.1


def test_an_architecture_that_fails_while_it_is_traced_is_a_row_not_the_end(tiny_spec):
    from dataclasses import replace

    from harness.predict.trace_pool import TraceKey
    from harness.predict.tracer import trace_job

    odd = replace(tiny_spec, architecture={**tiny_spec.architecture, "num_attention_heads": 3})
    key = TraceKey(odd, precisions.find("fp32"), "fp32", Recipe(), 64, "cpu")
    answer = trace_job(to_stored(key), print)
    assert answer.keys() == {"unsupported"}
    assert answer["unsupported"]


def test_the_smallest_run_by_hand():
    """A load of 8 s, one micro-step of 3 s to warm up and three samples: 20 s."""
    assert Judgement(prediction=SimpleNamespace(load_s=8.0, micro_s=3.0)).smallest_run_s == 20.0
    assert Judgement("unsupported", "no such architecture").smallest_run_s is None
