"""A folder's config.json as a model: its name, and the longest context under every name that configs give it."""

import json

import pytest

from harness.catalog import model_folder
from harness.catalog import models as catalog
from harness.cli import parse
from harness.errors import UserError


@pytest.mark.parametrize(
    "config",
    ["", "[]", "{}", '{"model_type": "llama"}', '{"model_type": "llama", "max_position_embeddings": -1}'],
)
def test_a_folder_without_a_model(tmp_path, config):
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"config\.json"):
        model_folder.from_folder(tmp_path)


def test_a_folder_cannot_name_its_way_out(tmp_path):
    folder = tmp_path / "=a[red] b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 8}))
    assert model_folder.from_folder(folder).name == "a-red-b"


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "llama", "max_position_embeddings": 4096}, 4096),
        ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 512}, 1024),
        ({"model_type": "ctrl", "max_position_embeddings": None, "n_ctx": 256}, 256),
        ({"model_type": "mpt", "max_seq_len": 2048}, 2048),
        ({"model_type": "bloom", "seq_length": 2048}, 2048),
        ({"model_type": "rwkv", "context_length": 1024}, 1024),
        ({"model_type": "mamba", "model_max_length": 1024}, 1024),
        ({"model_type": "llava", "max_position_embeddings": 9, "text_config": {"max_position_embeddings": 512}}, 512),
    ],
)
def test_the_window_under_every_name(tmp_path, capsys, config, window):
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = parse.model_of(str(tmp_path), catalog.load())
    assert (spec.max_context, spec.architecture) == (window, config)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "gemma3_text"}, 131072),
        ({"model_type": "falcon", "alibi": False}, 2048),
        ({"model_type": "mpt"}, 2048),
        ({"model_type": "llava", "text_config": {"model_type": "mistral"}}, 131072),
    ],
)
def test_a_window_that_is_left_out_is_transformers_default(tmp_path, capsys, config, window):
    """Asked of another process; the record's architecture stays as the file has it."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = parse.model_of(str(tmp_path), catalog.load())
    assert (spec.max_context, spec.architecture) == (window, config)
    assert capsys.readouterr().err == (
        f"{spec.name}: takes {window} tokens by transformers' default; its config says nothing\n"
    )


def test_no_other_process_is_asked_where_the_config_or_the_user_says_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parse, "_by_default", None)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 4096}))
    assert parse.model_of(str(tmp_path), catalog.load(), window=8192).max_context == 8192
    assert "takes 8192 tokens by --window; its config says 4096" in capsys.readouterr().err
    path.write_text(json.dumps({"model_type": "mamba"}))
    assert parse.model_of(str(tmp_path), catalog.load(), window=2048).max_context == 2048
    assert "takes 2048 tokens by --window; its config says nothing" in capsys.readouterr().err
    assert parse.model_of("qwen-0.5b", catalog.load(), window=100).max_context == 100


@pytest.mark.parametrize("config", [{"model_type": "mamba"}, {"model_type": "nothing-known"}])
def test_a_window_that_is_nowhere_is_asked_for(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="how many tokens the model takes; give them with --window"):
        parse.model_of(str(tmp_path), catalog.load())
    with pytest.raises(UserError, match="--window must be a whole number from 2 to"):
        parse.model_of(str(tmp_path), catalog.load(), window=0)
