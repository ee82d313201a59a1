"""Weights that another machine has named: the same folder, this machine's cache of the hub, or one line."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.catalog.weights import folder
from harness.errors import UserError

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


def test_what_another_machine_had_of_the_hub_is_this_ones_of_the_same_revision(cached):
    assert folder(f"/home/somebody/hub/models--org--some-model/snapshots/{REVISION}") == str(cached)


def test_what_is_not_here_and_cannot_be_had_is_one_line_that_names_the_machine(cached, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=f"{socket.gethostname()} has no folder /elsewhere/model"):
        folder("/elsewhere/model")
    with pytest.raises(UserError, match="org/some-model cannot be downloaded: the hub cannot be reached"):
        folder(f"/elsewhere/models--org--some-model/snapshots/{ANOTHER}")
