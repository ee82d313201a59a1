"""Which kernels run: named, or tried here and kept; what does not run is left out with its reason."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from harness import files
from harness.catalog import kernels as table
from harness.catalog.recipes import RecipeOptions, resolve
from harness.errors import Unsupported, UserError
from harness.records.cell import REFERENCE, Recipe
from harness.train.ops import attention, autoselect, pointwise

CPU = torch.device("cpu")
SHAPES = autoselect.Shapes(heads=4, kv_heads=2, head_dim=8, hidden_size=32, intermediate_size=48)
FIRST = "attention=blocks pointwise=plain"


@pytest.fixture
def empty(monkeypatch, tmp_path):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path))
    return tmp_path / "kernels"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("auto", "auto"),
        ("plain", "plain"),
        ("pointwise=compiled", "pointwise=compiled"),
        ("pointwise=liger,attention=flash", "attention=flash pointwise=liger"),
    ],
)
def test_kernels_are_stored_in_one_way_of_writing(text, stored):
    assert table.normalize(text) == stored
    assert resolve(Recipe(), RecipeOptions(kernels=text)).kernels == stored


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("fast", "names no part"),
        ("softmax=flash", "names no part"),
        ("attention=flsh", "did you mean flash"),
        ("attention=sdpa attention=flash", "names attention twice"),
        ("pointwise=", "unknown kernel of pointwise"),
    ],
)
def test_what_names_no_kernel_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        table.normalize(text)


def test_the_reference_step_has_no_kernels_to_choose():
    with pytest.raises(UserError, match="leave it out"):
        resolve(Recipe(implementation=REFERENCE), RecipeOptions(kernels="plain"))


def test_the_fastest_is_taken_and_said():
    best, notes = autoselect.fastest_kernel(
        "attention", {"sdpa": 0.004, "flash": 0.002, "efficient": 0.0019, "cudnn": "no such"}
    )
    assert best == "flash"  # efficient is faster by no more than noise
    assert notes == [
        "attention: flash is used (sdpa 4.00 ms, flash 2.00 ms, efficient 1.90 ms)",
        "attention: flash is used, for cudnn does not run here: no such",
    ]
    assert autoselect.fastest_kernel("pointwise", {"plain": 0.5}) == ("plain", [])


def test_measured_once_a_device_and_kept(empty, monkeypatch):
    measured = []

    def measure(shapes, device, dtype):
        measured.append((shapes, dtype))
        return {"attention": {"blocks": 0.2, "sdpa": 0.1}, "pointwise": {"plain": 0.1, "compiled": "no compiler"}}

    monkeypatch.setattr(autoselect, "measure", measure)
    for _ in range(2):
        chosen = autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
        assert str(chosen) == "attention=sdpa pointwise=plain"
        assert "for compiled does not run here: no compiler" in " ".join(chosen.notes)
    assert measured == [(SHAPES, torch.float32)]
    autoselect.choose_kernels("auto", SHAPES, CPU, torch.bfloat16)
    autoselect.choose_kernels("auto", replace(SHAPES, hidden_size=64), CPU, torch.float32)
    assert len(measured) == 3 == len(list(empty.iterdir()))


def test_a_compiler_installed_later_is_tried(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "measure", lambda *_: {"attention": {"blocks": 0.2}, "pointwise": {"plain": 0.1}})
    for compiler in (None, "/usr/bin/cc"):
        monkeypatch.setattr(autoselect, "which", lambda name, compiler=compiler: compiler)
        autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    assert len(list(empty.iterdir())) == 2


def test_shapes_of_configs():
    """What is left out follows from the rest; of a list, one a layer, the first counts; without heads there is none."""
    config = SimpleNamespace(num_attention_heads=4, hidden_size=64)
    assert autoselect.Shapes.of(config) == autoselect.Shapes(4, 4, 16, 64, 256)
    config = SimpleNamespace(num_attention_heads=[8, 4], num_key_value_heads=[2, 1], head_dim=32, hidden_size=64,
                             intermediate_size=[100, 200])  # fmt: skip
    assert autoselect.Shapes.of(config) == autoselect.Shapes(8, 2, 32, 64, 100)
    assert autoselect.Shapes.of(SimpleNamespace(hidden_size=64)) is None
    assert str(autoselect.choose_kernels("auto", None, CPU, torch.float32)) == FIRST


FORGED = [
    {"attention": {"blocks": 1.0}},
    {"attention": {"blocks": "no", "sdpa": 0.1}, "pointwise": {"plain": 0.1}},
    {"attention": {"nosuch": 0.1}, "pointwise": {"plain": 0.1}},
    {"attention": {}, "pointwise": {"plain": 0.1}},
]


@pytest.mark.parametrize("torn", ["", "{", "[]", *map(json.dumps, FORGED)])
def test_a_torn_file_is_measured_again(empty, monkeypatch, torn):
    whole = {"attention": {"blocks": 0.2}, "pointwise": {"plain": 0.1}}
    monkeypatch.setattr(autoselect, "measure", lambda *_: whole)
    autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    (path,) = empty.iterdir()
    path.write_text(torn)
    assert str(autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)) == FIRST
    assert files.read_cache(f"kernels/{path.name}", dict) == whole


def test_what_is_named_is_not_measured(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "measure", None)
    assert str(autoselect.choose_kernels("plain", SHAPES, CPU, torch.float32)) == FIRST
    named = "attention=sdpa pointwise=plain"
    assert str(autoselect.choose_kernels(named, SHAPES, CPU, torch.float32)) == named


def test_a_kernel_of_another_device_or_one_that_fails_is_said(monkeypatch):
    with pytest.raises(Unsupported, match="pointwise=liger is not for cpu, which has plain, compiled"):
        autoselect.choose_kernels("pointwise=liger", SHAPES, CPU, torch.float32)

    def no_compiler(kernel):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(pointwise, "of", no_compiler)
    with pytest.raises(Unsupported, match=r"pointwise=compiled does not run here: no C\+\+ compiler$"):
        autoselect.choose_kernels("pointwise=compiled", SHAPES, CPU, torch.float32)


def test_measuring_here(empty, monkeypatch):
    """Every kernel of the CPU has seconds, or with no compiler a reason; another part is not touched by that."""
    plain = pointwise.of("plain")

    def of(kernel):
        if kernel == "compiled":
            raise RuntimeError("no C++ compiler")
        return plain

    monkeypatch.setattr(pointwise, "of", of)
    measured = autoselect.measure(SHAPES, CPU, torch.float32)
    assert set(measured["attention"]) == {"blocks", "sdpa"}
    assert all(seconds > 0 for seconds in measured["attention"].values())
    assert measured["pointwise"]["plain"] > 0 and measured["pointwise"]["compiled"] == "no C++ compiler"


def test_nothing_is_chosen_where_a_part_is_emulated(empty, monkeypatch):
    monkeypatch.setattr(autoselect, "_LONGEST_S", 0.0)
    chosen = autoselect.choose_kernels("auto", SHAPES, CPU, torch.float32)
    assert str(chosen) == FIRST and not chosen.notes


def test_without_liger_its_absence_is_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    reason = autoselect._try(lambda: pointwise._liger(), CPU)
    assert "liger_kernel" in reason


def test_attention_is_timed_over_several_lengths_each_new(monkeypatch):
    """So that what is prepared for a new length is in the median, for every kernel in the same lengths."""
    seen = {}

    def attend(kernel, query, key, value, alone):
        seen.setdefault(kernel, []).append(query.shape[2])
        return query + key + value

    monkeypatch.setattr(attention, "with_kernel", attend)
    monkeypatch.setitem(autoselect.LENGTHS, "cpu", autoselect.LENGTHS["cuda"])
    monkeypatch.setitem(autoselect.TOKENS, "cpu", 2048)
    autoselect.measure(replace(SHAPES, heads=2, kv_heads=2), CPU, torch.float32)
    for lengths in seen.values():
        assert len(set(lengths)) == len(lengths) == 2 + autoselect._ROUNDS
        assert lengths == seen["blocks"]
