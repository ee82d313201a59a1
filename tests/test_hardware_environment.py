"""What numbers depend on: torch's own version, a card's environment, and which old rows answer."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from helpers.records import cell, row
from helpers.sweep import CARD, WORLD, Bench

from harness.hardware import card_environment, environment
from harness.hardware.info import Device
from harness.records.measurement import from_json, to_json
from harness.records.store import Store

T4 = Device("cuda:0", "Tesla T4", 15 << 30, capability="7.5")
VERSIONS = {"torch": "2.13.0+cu130", "transformers": "5.23.0"}
THERE = {"cuda": "13.0", "cudnn": "9.20.0", "triton": "3.7.1", "driver": "580.95.05", "power_limit_w": "70",
         "capability": "7.5"}  # fmt: skip


def test_torchs_version_is_its_own_with_its_build():
    assert environment.versions()["torch"] == torch.__version__


def test_torchs_version_is_read_without_importing_it(tmp_path, monkeypatch):
    """pip's metadata of a wheel from the index says 2.13.0, the file says which CUDA it was built for."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch" / "version.py").write_text("from typing import Optional\n__version__ = '9.9.9+cu126'\n")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment.versions()["torch"] == "9.9.9+cu126"
    (tmp_path / "torch" / "version.py").unlink()
    assert environment.versions()["torch"] == metadata.version("torch")


def test_what_a_card_says(monkeypatch):
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetName=lambda handle: "Tesla T4",
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 70_000,
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92000)
    monkeypatch.setattr(torch.cuda, "_get_pynvml_handler", lambda device: "handle")
    seen = card_environment.read(T4, nvml)
    assert seen | {"triton": "3.7.1"} == THERE
    del nvml.nvmlDeviceGetEnforcedPowerLimit  # a MIG slice
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 8907)
    assert "power_limit_w" not in card_environment.read(T4, nvml)
    assert card_environment.read(T4, nvml)["cudnn"] == "8.9.7"
    assert card_environment.read(Device("cpu", "A CPU", 1), nvml) == {}


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("cuda", "12.6", True),
        ("cudnn", "9.10.2", True),
        ("triton", "3.6.0", True),
        ("power_limit_w", "50", True),
        ("driver", "590.10", True),
        ("driver", "580.105.08", False),  # another patch of the branch: the kernels come with torch
    ],
)
def test_which_rows_answer_for_a_cell_of_a_card(name, value, other):
    on = cell(device="cuda:0", device_name="Tesla T4")
    assert (on.key(VERSIONS, THERE) != on.key(VERSIONS, THERE | {name: value})) == other


def test_rows_of_a_cpu_answer_whichever_cuda_torch_was_built_for():
    """Rows from before had pip's version, without the build."""
    here = cell()
    assert (
        here.key(VERSIONS) == here.key(VERSIONS | {"torch": "2.13.0"}) == here.key(VERSIONS | {"torch": "2.13.0+cu126"})
    )
    assert here.key(VERSIONS) != here.key(VERSIONS | {"torch": "2.14.0+cu130"})


def test_old_rows_stay_readable():
    raw = to_json(row())
    del raw["environment"], raw["bandwidth"]
    old = from_json(raw)
    assert old.environment == {} and old.bandwidth is None


def test_a_sweep_on_a_card_keeps_its_environment_and_measures_again_where_it_changed(tmp_path):
    bench = Bench(tmp_path)
    rates = {name: WORLD["rates"]["fp32"] for name in ("fp32", "fp16")}
    world = WORLD | {"device": CARD, "rates": rates, "bandwidth": 2.5e11}
    for there, measured in ((THERE, True), (THERE, False), (THERE | {"cuda": "12.6"}, True)):
        bench.world(world, environment=there)
        _, watch = bench.run(("fp16",), (256,), arc_lengths=False)
        assert watch.rows == [("fp16 256", "ok", measured)]
    rows = list(Store(bench.results).rows().values())
    assert [r.environment["cuda"] for r in rows] == ["13.0", "12.6"] and rows[0].bandwidth == 2.5e11


@pytest.mark.parametrize(("name", "said"), [("NVIDIA GeForce RTX 3080", True), ("Tesla T4", False)])
def test_a_sweep_says_where_predictions_are_by_the_probe(tmp_path, name, said):
    bench = Bench(tmp_path)
    rates = {dtype: WORLD["rates"]["fp32"] for dtype in ("fp32", "fp16")}
    bench.world(WORLD | {"device": CARD | {"name": name}, "rates": rates, "bandwidth": 2.5e11})
    _, watch = bench.run(("fp16",), (256,), arc_lengths=False)
    notes = [note for note in watch.notes if f"the table has no {name}" in note]
    assert len(notes) == said
