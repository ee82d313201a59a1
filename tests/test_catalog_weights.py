"""Weights that another machine has named: the same folder, this machine's cache of the hub, or one line."""

import json
import socket
import struct
from pathlib import Path

import pytest
from helpers.records import cell
from huggingface_hub import constants

from harness.catalog import fingerprint
from harness.catalog.weights import folder, resolve, without_digest
from harness.errors import UserError
from harness.records.cell import ModelSpec

REVISION, ANOTHER = "a" * 40, "b" * 40


@pytest.fixture
def cached():
    snapshot = Path(constants.HF_HUB_CACHE) / "models--org--some-model" / "snapshots" / REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    return snapshot


def test_a_folder_that_is_here_is_taken(tmp_path):
    assert folder(str(tmp_path)) == str(tmp_path)


@pytest.fixture
def trained(tmp_path):
    """Saves a model whose one matrix, of 20,000 values, is `value` times one, and names its weights."""

    def save(value, name="model", **beside):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        matrix = struct.pack("<20000f", *[value] * 20000)
        header = json.dumps({"w": {"dtype": "F32", "shape": [20000], "data_offsets": [0, len(matrix)]}}).encode()
        (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + matrix)
        for file, text in {"config.json": '{"model_type": "llama"}', **beside}.items():
            (path / file).write_text(text)
        fingerprint._of_files.cache_clear()  # a clock may be too coarse for two files
        return resolve(ModelSpec(name, {}, 256, path=str(path)), "auto")

    return save


def test_other_weights_in_the_same_folder_are_another_model(trained, tmp_path):
    first, again, retrained = trained(1.0), trained(1.0), trained(1.001)
    assert first == again != retrained
    # And so are those with another tokenizer.
    words = {"tokenizer.json": "{}"}
    assert trained(1.001, **words) != retrained
    keys = {cell(weights=name).key({}) for name in (first, again, retrained)}
    assert len(keys) == 2
    spec = ModelSpec("model", {}, 256, path=str(tmp_path / "model"))
    with pytest.raises(UserError, match="other weights than those that were measured"):
        resolve(spec, first)
    with pytest.raises(UserError, match=f"{socket.gethostname()} has other files in"):
        folder(first)
    # Rows from before have the folder alone.
    now = resolve(spec, "auto")
    assert resolve(spec, without_digest(now)) == now and folder(now) == without_digest(now) == str(tmp_path / "model")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff" * 40, struct.pack("<Q", 5) + b"[1,2]", struct.pack("<Q", 4) + b"null"]
)
def test_what_is_no_safetensors_is_refused_where_it_is_loaded(trained, tmp_path, content):
    trained(1.0)
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    assert resolve(ModelSpec("model", {}, 256, path=str(tmp_path / "model")), "auto").startswith("files:")


def test_what_another_machine_had_of_the_hub_is_this_ones_of_the_same_revision(cached):
    assert folder(f"/home/somebody/hub/models--org--some-model/snapshots/{REVISION}") == str(cached)


def test_what_is_not_here_and_cannot_be_had_is_one_line_that_names_the_machine(cached, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=f"{socket.gethostname()} has no folder /elsewhere/model"):
        folder("/elsewhere/model")
    with pytest.raises(UserError, match="org/some-model cannot be downloaded: the hub cannot be reached"):
        folder(f"/elsewhere/models--org--some-model/snapshots/{ANOTHER}")
