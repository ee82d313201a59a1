"""Accelerators by name and from a file of one's own, and every way in which such a file may be wrong."""

import pytest
from helpers.predictions import OWN_ACCELERATOR

from harness.catalog import accelerators
from harness.errors import UserError
from harness.records.measurement import MatmulSpeed


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
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
    ],
)
def test_names_that_the_driver_gives(name, row):
    assert accelerators.find(name).name == row


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA GeForce RTX 3090 Ti", "rtx-3090"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090"),
        ("NVIDIA GeForce RTX 5090 D", "rtx-5090"),
        ("GRID T4-16Q", "t4"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000"),
    ],
)
def test_a_card_with_other_figures_is_none_of_the_table(name, nearest):
    with pytest.raises(UserError, match=f"unknown accelerator '{name}': the table has .*{nearest}.*, not this one"):
        accelerators.find(name)


MIG = "NVIDIA A100-SXM4-80GB MIG 1g.10gb"
PROBED = {"fp16": MatmulSpeed(40e12, 30e12, True), "fp32": MatmulSpeed(9e12, 9e12, True)}


@pytest.mark.parametrize("name", [MIG, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "H100 MIG"])
def test_a_mig_slice_is_no_whole_card(name):
    with pytest.raises(UserError, match="a MIG slice is a part of a card"):
        accelerators.find(name)
    assert accelerators.is_slice(name) and not accelerators.is_slice("NVIDIA H100 80GB HBM3")


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3080", MIG, "2 x NVIDIA GeForce RTX 3080"])
def test_a_card_in_no_table_is_made_of_its_probe(name):
    card = accelerators.of_probe(name, "cuda", 10 << 30, PROBED, 760e9, "8.6")
    assert card.rate("fp16") == (40e12, 30e12) and card.native == ("fp16", "fp32")
    assert (card.memory_bytes, card.bandwidth, card.capability) == (10 << 30, 760e9, "8.6")
    assert (card.name, card.count) == (name.removeprefix("2 x "), 2 if name.startswith("2") else 1)
    assert "by the probe" in card.origin and "bandwidth by a copy" in card.origin


def test_a_bandwidth_that_was_not_measured_is_said_to_be_assumed():
    card = accelerators.of_probe("NVIDIA GeForce RTX 3080", "cuda", 10 << 30, PROBED)
    assert card.bandwidth == pytest.approx(2 / (1 / 40e12 + 1 / 30e12) / 200)
    assert "bandwidth assumed" in card.origin


def test_a_card_of_the_table_keeps_its_figures_whatever_was_probed():
    assert accelerators.of_probe("Tesla T4", "cuda", 15 << 30, PROBED, 1e9, "7.5") == accelerators.find("t4")
    assert accelerators.of_probe("2 x Tesla T4", "cuda", 0, {}) == accelerators.find("2xt4")


def test_a_part_of_a_card_that_bears_the_name_of_the_whole_is_made_of_its_probe():
    """An eighth of an A100's 79 GiB, as some virtual machines give it."""
    part = accelerators.of_probe("NVIDIA A100-SXM4-80GB", "cuda", 10 << 30, PROBED)
    assert part.memory_bytes == 10 << 30 and part.rate("fp16")[0] == 40e12
    with pytest.raises(UserError, match="unknown accelerator"):
        accelerators.of_probe("NVIDIA GeForce RTX 3080", "cuda", 10 << 30, {})


def test_a_dtype_no_faster_than_fp32_is_not_native(tmp_path):
    """PyTorch's fp16 products accumulate in fp32, which a P100 does at fp32's rate."""
    assert accelerators.find("p100").native == ("fp32",) and accelerators.find("p100").native_half == "fp32"
    assert accelerators.find("v100").native == ("fp32", "fp16")
    path = tmp_path / "mine.yaml"
    path.write_text(OWN_ACCELERATOR.replace("fp16: 71", "fp16: 36"))
    assert accelerators.find(str(path)).native == ("fp32",)


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
                      "V100 16GB": "v100", "h100 pcie": "h100-pcie", "5090": "rtx-5090",
                      "rtx pro 6000": "rtx-pro-6000"}.items():  # fmt: skip
        assert accelerators.find(name).name == row
    assert accelerators.find("2xt4").count == 2
    with pytest.raises(UserError, match="unknown accelerator 'rtx 3091'; did you mean rtx-3090"):
        accelerators.find("rtx 3091")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("t4 l4", ["t4", "l4"]),
        ("t4,l4, t4", ["t4", "l4"]),
        ("NVIDIA A100-SXM4-80GB", ["NVIDIA A100-SXM4-80GB"]),
        ("NVIDIA L4 Tesla T4", ["NVIDIA L4", "Tesla T4"]),
        ("rtx 3090 rtx 4090 a100 80GB", ["rtx 3090", "rtx 4090", "a100 80GB"]),
        ("NVIDIA GeForce RTX 3080 Ti l4", ["NVIDIA GeForce RTX 3080 Ti", "l4"]),
        ("h100 h100-pcie, h100 pcie", ["h100", "h100-pcie", "h100 pcie"]),
        ("T4 x2", ["T4 x2"]),
        ("2 x T4 4 x NVIDIA L4", ["2xT4", "4xNVIDIA L4"]),
        ("A100 80GB x 2 cpu own.yaml", ["A100 80GB x2", "cpu", "own.yaml"]),
        ("t4 l44", ["t4", "l44"]),
        (" , ", []),
    ],
)
def test_a_list_of_cards_as_people_and_drivers_write_them(text, names):
    assert accelerators.listed(text) == names


@pytest.mark.parametrize(
    ("name", "count", "bare"),
    [
        *((two, 2, "T4") for two in ("2xT4", "2 x T4", "2XT4", "T4 x2", "T4x2", "T4 x 2")),
        ("A100 80GB x2", 2, "A100 80GB"),
        ("GTX 1080", 1, "GTX 1080"),
        ("gtx1080", 1, "gtx1080"),
    ],
)
def test_a_number_of_cards_stands_before_or_behind_the_name(name, count, bare):
    assert accelerators.counted(name) == (count, bare)


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
