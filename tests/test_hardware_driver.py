"""What a driver says of itself, and which torch runs on which driver and card."""

from types import SimpleNamespace

import pytest

from harness.hardware import driver
from harness.hardware.driver import Driver

CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


class NvmlError(Exception):
    """As pynvml's, which derive from Exception directly."""


def nvml(*names, version="580.95.05", fails=""):
    """pynvml of a machine with these cards; `fails` names the function that does not answer."""

    def fail(*_):
        raise NvmlError

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(names),
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda i: names[i],
        "nvmlSystemGetDriverVersion": lambda: version,
    }
    return SimpleNamespace(**{**answers, **({fails: fail} if fails else {})})


def test_what_the_driver_says(tmp_path):
    missing, present = tmp_path / "nvidia0", tmp_path / "here"
    present.touch()
    assert driver.look(nvml("Tesla T4", b"Tesla T4"), missing) == Driver("580.95.05", ("Tesla T4", "Tesla T4"))
    assert driver.look(nvml(), missing) is None
    for function in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName"):
        assert driver.look(nvml("Tesla T4", fails=function), missing) is None
        assert driver.look(nvml("Tesla T4", fails=function), present).cards == ()


@pytest.mark.parametrize(
    ("version", "built_for", "remedy"),
    [
        ("550.54.15", "13.0", "whl/cu126, or update the driver to 580 or newer"),
        ("575.10", "13.0", "whl/cu128, or update the driver to 580 or newer"),
        ("550.54.15", "12.8", "whl/cu126, or update the driver to 570 or newer"),
        ("470.82.01", "13.0", "update the driver to 580 or newer"),
        ("470.82.01", "12.4", "update the driver to 525 or newer"),
        ("580.95.05", None, "torch 2.13.0 is built without CUDA; install one that runs on this driver: pip install"),
        ("580.95.05", "13.0", "the driver is new enough: see whether nvidia-smi works"),
        (None, "13.0", "its driver does not answer: see whether nvidia-smi works"),
    ],
)
def test_the_remedy_for_a_driver_that_torch_cannot_use(version, built_for, remedy, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sentence = driver.unusable(Driver(version, ("Tesla T4",)), "2.13.0", built_for)
    assert remedy in sentence and "Tesla T4" in sentence and "--device cpu" in sentence and "\n" not in sentence


def test_a_card_that_is_named_and_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES is 7" in driver.unusable(Driver("580.95", ("Tesla T4",)), "2.13.0", "13.0")


@pytest.mark.parametrize(
    ("capability", "compiled"),
    [
        ("7.5", CU130),
        ("8.9", CU130),  # by the code for 8.6
        ("12.1", CU130),
        ("13.0", CU130),  # compiled by the driver
        ("6.1", CU126),
        ("9.0", ["sm_90a"]),
        ("10.3", ["sm_100f"]),
        ("7.0", []),  # a build that does not say
        ("9.0", ["gfx90a"]),
    ],
)
def test_a_card_with_kernels(capability, compiled):
    assert driver.missing_kernels("card", capability, compiled, "2.13.0") is None


@pytest.mark.parametrize(
    ("capability", "compiled", "remedy"),
    [
        ("6.0", CU130, '"torch<2.11" --index-url https://download.pytorch.org/whl/cu126'),
        ("7.0", CU130, '"torch<2.11" --index-url https://download.pytorch.org/whl/cu126'),
        ("12.0", CU126, "torch --index-url https://download.pytorch.org/whl/cu128"),
        ("10.3", ["sm_100a"], "whl/cu128"),
        ("3.7", CU126, "choose another card"),
    ],
)
def test_a_card_without_kernels_and_which_torch_has_them(capability, compiled, remedy):
    sentence = driver.missing_kernels("card", capability, compiled, "2.13.0+cu130")
    assert remedy in sentence and f"card (compute capability {capability})" in sentence and "\n" not in sentence
