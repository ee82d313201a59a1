"""Runs of one process on several cards, which are not predicted: whatever tells of one refuses it."""

import json
import pickle
import zipfile
from types import SimpleNamespace

import pytest
from helpers import logs

from harness.errors import UserError
from harness.logs import training_args
from harness.logs.reading import read_log

ADJUSTED = "  Training with DataParallel so batch size has been adjusted to: 8\n"
WARNING = "/x/torch/nn/parallel/_functions.py:71: UserWarning: Was asked to gather along dimension 0\n"


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "checkpoint-30" / "trainer_state.json"
    path.parent.mkdir()
    path.write_text(json.dumps(logs.STATE))
    return path


def save(path, content, name="training_args/data.pkl", **more):
    """As torch.save lays it out."""
    with zipfile.ZipFile(path, "w", **more) as archive:
        archive.writestr(name, content)


def arguments(**values):
    return pickle.dumps(SimpleNamespace(output_dir="out", bf16=False, **values), protocol=2)


@pytest.mark.parametrize(
    ("values", "cards"),
    [
        ({"per_device_train_batch_size": 4, "_n_gpu": 2}, 2),
        ({"per_device_train_batch_size": 2, "_n_gpu": -1}, 2),  # the state has 4
        ({"per_device_train_batch_size": 4, "_n_gpu": 1}, 1),
        ({"per_device_train_batch_size": 8, "_n_gpu": 1}, 1),  # halved, for memory had run out
        ({}, 1),
    ],
)
def test_the_arguments_beside_a_state_tell(state, values, cards):
    for folder in (state.parent, state.parent.parent):
        save(folder / training_args.NAME, arguments(**values))
        if cards > 1:
            with pytest.raises(UserError, match=r"one process on 2 cards \(torch.nn.DataParallel\).*; take a run"):
                read_log(state)
        else:
            assert read_log(state).steps == 30
        (folder / training_args.NAME).unlink()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_arguments_are_never_loaded(state, tmp_path):
    save(state.parent / training_args.NAME, pickle.dumps({"_n_gpu": 2, "x": Evil(tmp_path / "made")}, protocol=2))
    with pytest.raises(UserError, match="on 2 cards"):
        read_log(state)
    assert not (tmp_path / "made").exists()


def test_arguments_that_cannot_be_read_are_as_good_as_none(state):
    path = state.parent / training_args.NAME
    good = arguments(_n_gpu=2)
    for content, more in (
        (good[:20], {}), (b"", {}), (b"\xff" * 99, {}), (good, {"compression": zipfile.ZIP_DEFLATED}),
        (good, {"name": "other"}), (b"0" * (2 << 20), {}),
    ):  # fmt: skip
        save(path, content, **more)
        assert read_log(state).steps == 30
    path.write_bytes(good)
    assert read_log(state).steps == 30


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (ADJUSTED, "one process on 2 cards"),
        (WARNING, "one process on several cards"),
        (WARNING.replace("/", "\\"), "several cards"),
        (ADJUSTED.replace("8", "2"), None),  # memory had run out
    ],
)
def test_an_output_tells(tmp_path, line, message):
    path = tmp_path / "log"
    path.write_text(logs.PRINTED.replace("  Total train batch", f"{line}  Total train batch", 1))
    if message:
        with pytest.raises(UserError, match=message):
            read_log(path)
    else:
        assert read_log(path).seconds == 9.0
