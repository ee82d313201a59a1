"""Weights of GGUF files: the model that was written comes back, and whatever else a file holds is one line."""

import io
import json
import os
import re
import struct
import sys
from dataclasses import replace

import pytest
import torch
from helpers.gguf_files import TOKENS, random_model, rounded, write
from helpers.records import cell
from helpers.tasks import made_tasks
from helpers.tuning import RECIPE, arms_of, spec_of
from rich.console import Console

from harness.catalog import gguf_header, gguf_model, model_folder, weights
from harness.catalog import models as catalog
from harness.catalog.precisions import find
from harness.cli.app import main
from harness.errors import UserError
from harness.records.cell import ModelSpec, Recipe
from harness.report import weight_notes
from harness.train import model as models
from harness.train.model import load_tokenizer

CPU = torch.device("cpu")
KINDS = {"llama": {}, "qwen2": {}, "qwen3": {}, "llama-head": {"tie_word_embeddings": False}}


@pytest.fixture(scope="module")
def llama():
    return random_model()


@pytest.fixture(scope="module")
def q8(tmp_path_factory, llama):
    return write(tmp_path_factory.mktemp("gguf") / "small.gguf", llama, quantization="Q8_0")


def _logits(model):
    with torch.no_grad():
        return model(torch.arange(40)[None] + 7).logits.float()


def _loaded(path, precision="fp32", **changes):
    spec = model_folder.from_gguf(path)
    recipe = Recipe(**{"implementation": "reference", **changes})
    return models.load(spec, find(precision), "fp32", recipe, weights.resolve(spec, "auto"), CPU)


def test_every_architecture_that_is_taken_is_tried():
    assert {kind.partition("-")[0] for kind in KINDS} == set(gguf_model.LAYER_TENSORS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_that_was_written_comes_back(tmp_path, kind):
    model = random_model(kind.partition("-")[0], **KINDS[kind])
    loaded = _loaded(write(tmp_path / "model.gguf", model))
    # A fresh adapter changes nothing.
    torch.testing.assert_close(_logits(loaded.model.eval()), _logits(model), rtol=1e-4, atol=1e-4)
    assert loaded.params == sum(p.numel() for p in model.parameters())


def test_quantised_weights_come_back_as_they_are_dequantised(q8):
    expected = rounded(random_model(), "Q8_0")
    torch.testing.assert_close(_logits(_loaded(q8).model.eval()), _logits(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_they_are_quantised_anew_where_the_precision_says_so(tmp_path, kind):
    model = random_model(kind)
    loaded = _loaded(write(tmp_path / "model.gguf", model), "int4")
    base = loaded.model.get_base_model().model.layers[0]
    assert base.self_attn.q_proj.base_layer.weight.quant_state.quant_type == "nf4"
    if kind == "qwen2":
        torch.testing.assert_close(base.self_attn.q_proj.base_layer.bias, model.model.layers[0].self_attn.q_proj.bias)
    exact, rough = _logits(model), _logits(loaded.model.eval())
    assert 0 < (exact - rough).norm() < 0.3 * exact.norm()


def test_a_fine_tune_trains_on_them_and_its_rows_and_tables_say_so(tmp_path):
    path = write(tmp_path / "small.gguf", random_model(max_position_embeddings=512), "Q4_1")
    tasks, solutions = made_tasks(2)
    model = catalog.load().find(str(path))
    recipe = replace(RECIPE, kernels="plain")
    spec = spec_of(None, tasks, model=model, weights=weights.resolve(model, "auto"), recipe=recipe, views=1)
    rows, _ = arms_of(spec, tasks, solutions, tmp_path / "results", "baseline, n-1")
    assert [row.ok for row in rows] == [True, True] and rows[1].step_losses[-1] < rows[1].step_losses[0]
    assert {re.sub(":[0-9a-f]{8}@", "@", row.spec.weights) for row in rows} == {f"gguf:Q4_1@{path}"}
    out = Console(width=80, file=io.StringIO())
    weight_notes.show((), rows, out)
    assert out.file.getvalue() == "- small: weights gguf Q4_1, dequantised.\n"


def test_the_tokenizer_is_the_files(q8):
    tokenizer = load_tokenizer(weights.resolve(model_folder.from_gguf(q8), "auto"))
    assert load_tokenizer(str(q8)).get_vocab() == tokenizer.get_vocab()  # as coverage names it
    ids = tokenizer("01 t\n")["input_ids"]
    assert [TOKENS[i] for i in ids] == ["0", "1", "Ġt", "Ċ"]
    assert tokenizer.eos_token == "<|end|>"


def test_a_file_is_a_model_by_its_path_and_says_its_quantisation(q8, tmp_path):
    spec = catalog.load().find(str(q8))
    assert (spec.name, spec.max_context, spec.path) == ("small", 256, str(q8.resolve()))
    name = weights.resolve(spec, "auto")
    assert re.fullmatch(rf"gguf:Q8_0:[0-9a-f]{{8}}@{q8.resolve()}", name)
    assert weights.resolve(spec, name) == name  # as `solve --recipe` names it
    # Rows from before have no digest.
    before = weights.without_digest(name)
    assert before == f"gguf:Q8_0@{q8.resolve()}" and weights.resolve(spec, before) == name
    for named in (name, before):
        assert weights.label(named) == "gguf Q8_0, dequantised" and weights.folder(named) == str(q8.resolve())
    assert not weights.label("random") and not weights.label(str(tmp_path))


def test_another_file_under_the_same_path_is_another_model(tmp_path):
    """Of the same size, metadata and table, as another training has: one matrix differs in all values a little."""
    path, model = tmp_path / "small.gguf", random_model()
    spec, names = catalog.load().find(str(write(path, model))), []
    for change in (0.0, 0.0, 1e-3):
        with torch.no_grad():
            model.model.layers[1].self_attn.q_proj.weight.mul_(1 + change)
        before = path.read_bytes()
        write(path, model)
        os.utime(path, ns=(0, len(names)))  # a clock may be too coarse for three files
        names.append(weights.resolve(spec, "auto"))
    assert len(before) == path.stat().st_size and names[0] == names[1] != names[2]
    keys = [replace(cell(), model=spec, weights=name).key({}) for name in names]
    assert keys[0] == keys[1] != keys[2]
    # What a recipe, or a row of another machine, means is not there any more.
    with pytest.raises(UserError, match="other weights than those that were measured"):
        weights.resolve(spec, names[0])
    with pytest.raises(UserError, match="has another file"):
        weights.folder(names[0])


def test_a_file_of_another_shape_than_the_model_named_is_refused(q8):
    for key, value in (("hidden_size", 32), ("intermediate_size", 32), ("num_key_value_heads", 4)):
        with pytest.raises(UserError, match=f"of {key} [0-9]+, but other has {value}"):
            weights.resolve(ModelSpec("other", {"model_type": "llama", key: value}, 256), str(q8))


def test_a_file_that_went_is_one_line_and_a_folder_is_a_folder(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    assert weights.folder(str(tmp_path / "folder.gguf")) == str(tmp_path / "folder.gguf")
    with pytest.raises(UserError, match="has no file"):
        weights.folder(f"gguf:Q8_0@{tmp_path}/gone.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "mamba"}, "its architecture, 'mamba', is not read from GGUF"),
        ({"tokenizer": None}, "it has no tokenizer"),
        ({"tokenizer": "t5"}, "its tokenizer, 't5', is not read"),
        ({"end": False}, "no end-of-text token"),
        ({"extra": ["rope_freqs.weight"]}, "its tensor 'rope_freqs.weight' would be left out"),
        ({"left_out": ["blk.1.ffn_up.weight"]}, "it lacks 1 tensors, as blk.1.ffn_up.weight"),
        ({"metadata": {"llama.rope.scaling.factor": 2.0}}, "its rotary angles are scaled ('linear')"),
    ],
)
def test_what_would_not_be_read_right_is_refused(tmp_path, llama, capsys, changes, message):
    path = write(tmp_path / "odd.gguf", llama, **changes)
    for words in (["bench", str(path)], ["ttft", "smollm2-135m", "--weights", str(path)], ["solve", str(path)]):
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr().err
        assert end.value.code == 2 and printed.count("\n") == 1 and message in printed, printed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.rope.scaling.type", "yarn", "its rotary angles are scaled ('yarn')"),
        ("llama.rope.scale_linear", 4.0, "its rotary angles are scaled"),
        ("llama.rope.dimension_count", 8, "a part of each head"),
        ("llama.rope.freq_base", float("inf"), "its llama.rope.freq_base is inf, and no number above 0"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "is nan, and no number above 0"),
        ("llama.attention.layer_norm_rms_epsilon", None, "is None, and no number above 0"),
        ("llama.logit_scale", 0.5, "it has a logit_scale"),
        ("llama.attention.causal", False, "its tokens attend to later ones"),
        ("split.count", 2, "it is one of 2 parts of a model; join them with llama-gguf-split --merge"),
    ],
)
def test_what_transformers_would_leave_out_of_the_model_is_refused(tmp_path, llama, key, value, message):
    with pytest.raises(UserError) as refused:
        gguf_model.read(write(tmp_path / "odd.gguf", llama, metadata={key: value}))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_transformers_does_read_is_the_model_that_was_written(tmp_path):
    """Another base of the rotary angles and another epsilon; a factor of 1 scales nothing."""
    model = random_model(rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rms_norm_eps=0.01)
    path = write(tmp_path / "model.gguf", model, metadata={"llama.rope.scaling.factor": 1.0})
    torch.testing.assert_close(_logits(_loaded(path).model.eval()), _logits(model), rtol=1e-4, atol=1e-4)


def test_tensors_out_of_place_are_refused(tmp_path, q8):
    """The table of a damaged file: one tensor has another's values, is there twice, or has no dimensions."""
    whole, header = q8.read_bytes(), gguf_header.read(q8)
    first, second = header.tensors[1:3]
    offset = struct.pack("<Q", second.offset)
    at = whole.index(second.name.encode())
    at = whole.index(offset, at)
    path = tmp_path / "odd.gguf"
    dimensions = whole.index(first.name.encode()) + len(first.name)
    for changed, message in (
        (whole[:at] + struct.pack("<Q", first.offset) + whole[at + 8 :], "is out of place"),
        (
            whole.replace(b"blk.1.attn_k.weight", b"blk.0.attn_k.weight"),
            "it has the tensor 'blk.0.attn_k.weight' twice",
        ),
        (whole[:dimensions] + bytes(4) + whole[dimensions + 4 :], "is no whole GGUF file"),
        (whole[:4] + struct.pack(">I", 3) + whole[8:], "it is big-endian"),
    ):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=message):
            gguf_model.read(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(UserError, match="not a regular file"):
        gguf_model.read(tmp_path / "pipe.gguf")


def test_no_gguf_and_none_that_ends_early_is_taken(tmp_path, q8):
    """Cut at every place of its header, and a few of its values: one sentence each, quickly."""
    whole = q8.read_bytes()
    start = gguf_header.read(q8).start
    path = tmp_path / "cut.gguf"
    for size in [*range(0, start, 97), start, len(whole) // 2, len(whole) - 40]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"is no whole GGUF file \("):
            gguf_model.read(path)
    path.write_bytes(json.dumps({"no": "GGUF"}).encode())
    with pytest.raises(UserError, match="it does not begin with GGUF"):
        gguf_model.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        gguf_model.read(tmp_path / "nowhere.gguf")


def test_a_header_with_any_byte_changed_is_read_or_refused(tmp_path, q8):
    whole = bytearray(q8.read_bytes())
    path = tmp_path / "changed.gguf"
    for at in range(4, gguf_header.read(q8).start, 53):
        changed = whole.copy()
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            gguf_model.read(path)
        except UserError as problem:
            assert "\n" not in str(problem)


def test_without_the_package_the_remedy_is_named(q8, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    gguf_model._read.cache_clear()
    with pytest.raises(UserError, match="pip install gguf"):
        gguf_model.read(q8)
