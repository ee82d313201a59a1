"""Accelerators by name and from a file of one's own, and every way in which such a file may be wrong."""

import pytest
from helpers.predictions import OWN_ACCELERATOR

from harness.catalog import accelerators
from harness.errors import UserError


@pytest.mark.parametrize("name", list(accelerators.ACCELERATORS))
def test_every_accelerator_has_whole_figures(name):
    card = accelerators.find(name)
    assert card.memory_bytes > 10 << 30 and card.bandwidth > 1e11
    assert card.rate("fp32")[0] > 5e12 and card.rate("bf16")[0] > 1e12
    assert ("bf16" in card.native) == (float(card.capability) >= 8)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("Tesla T4", "t4"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
    ],
)
def test_names_that_the_driver_gives(name, row):
    assert accelerators.find(name).name == row


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA H100 NVL", "h100"),
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA GeForce RTX 3090 Ti", "rtx-3090"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "a100-80gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000"),
    ],
)
def test_a_card_with_other_figures_is_none_of_the_table(name, nearest):
    with pytest.raises(UserError, match=f"unknown accelerator '{name}': the table has .*{nearest}.*, not this one"):
        accelerators.find(name)


@pytest.mark.parametrize("name", ["NVIDIA", "RTX", "", "AMD EPYC 7B13"])
def test_a_maker_alone_is_no_card(name):
    with pytest.raises(UserError, match="unknown accelerator"):
        accelerators.find(name)


def test_no_two_rows_have_the_same_pattern():
    patterns = [words for name, row in accelerators._ROWS.items() for words in (name, *row[-1])]
    assert len({accelerators._words(pattern) for pattern in patterns}) == len(patterns)


def test_names_as_people_write_them():
    assert accelerators.find("Tesla T4").name == accelerators.find("T4").name == "t4"
    assert accelerators.find("NVIDIA A100").name == "a100-80gb"
    for name, row in {"3090": "rtx-3090", "rtx_3090": "rtx-3090", "A6000": "rtx-a6000", "h100-sxm": "h100",
                      "V100 16GB": "v100", "rtx pro 6000": "rtx-pro-6000"}.items():  # fmt: skip
        assert accelerators.find(name).name == row
    assert accelerators.find("2xt4").count == 2
    with pytest.raises(UserError, match="unknown accelerator 'rtx 3091'; did you mean rtx-3090"):
        accelerators.find("rtx 3091")


def test_an_accelerator_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN_ACCELERATOR)
    card = accelerators.find(str(path))
    assert (card.name, card.memory_bytes, card.bandwidth) == ("mine", 24 << 30, 936e9)
    assert card.native == ("fp32", "fp16") and card.rate("bf16")[0] < card.rate("fp32")[0]


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("bandwidth: 936 GB/s", "bandwidth: 0 GB/s", "line 3: bandwidth must be above 0"),
        ("bandwidth: 936 GB/s", "bandwidth: 936", "line 3: bandwidth needs a number with its unit, as in '24 GB/s'"),
        ("memory: 24 GiB", "memory: 24 TFLOP/s", "line 2: memory needs a number with its unit"),
        ("memory: 24 GiB\n", "", "memory is missing; write it with its unit"),
        ("fp16: 71 TFLOP/s", "fp16: many", "line 5: fp16 needs a number"),
        ("name: mine", "name: mine\ncolour: red", "colour is not a known key"),
        ("name: mine", "name: mine\nname: mine", "name is given twice"),
    ],
)
def test_a_bad_accelerator_is_one_line(tmp_path, line, instead, message):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN_ACCELERATOR.replace(line, instead))
    with pytest.raises(UserError, match=message):
        accelerators.find(str(path))
