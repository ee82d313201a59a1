"""What models in folders are called: never alike, whatever mounts, caches and trainers call the last folder."""

import json
from pathlib import Path

import pytest
from helpers.records import cell, row
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog import folder_name
from harness.catalog import models as catalog
from harness.cli import parse
from harness.errors import UserError
from harness.measure import plan
from harness.records.cell import ModelSpec


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/kaggle/input/qwen2.5/transformers/0.5b-instruct/1", "qwen2.5-0.5b-instruct-v1"),
        ("/kaggle/input/qwen2.5/transformers/0.5b-instruct/2", "qwen2.5-0.5b-instruct-v2"),
        ("/kaggle/input/qwen2.5/Transformers/1.5b/1", "qwen2.5-1.5b-v1"),
        ("/kaggle/input/models/qwen-lm/qwen2.5/transformers/0.5b/1", "qwen2.5-0.5b-v1"),
        ("/kaggle/input/gemma-3/transformers/gemma-3-1b-it/1", "gemma-3-1b-it-v1"),
        ("/kaggle/input/my-model/pytorch/default/3", "my-model-v3"),
        ("/home/me/run-7/checkpoint-500", "run-7-checkpoint-500"),
        ("/home/me/run-7/3/checkpoint-500", "run-7-checkpoint-500"),
        (f"/c/hub/models--Qwen--Qwen3-4B/snapshots/{'0a1b' * 10}", "Qwen3-4B-0a1b0a1b"),
        ("/1", "Qwen2.5-0.5B-1"),
        ("/home/me/qwen-arc", "qwen-arc"),
        ("/home/me/=a[red] b", "a-red-b"),
        ("/home/me/7b", "7b"),
    ],
)
def test_a_folders_name(path, name):
    assert folder_name.name_of(Path(path), {"_name_or_path": "Qwen/Qwen2.5-0.5B"}) == name


def test_where_nothing_says_more():
    for config in ({}, {"_name_or_path": 3}, {"_name_or_path": "///"}):
        assert folder_name.name_of(Path("/1"), config) == "model-1"
    assert folder_name.name_of(Path("/"), {}) == "model"


def test_a_long_name_is_cut_and_stays_its_own():
    one, two = (folder_name.name_of(Path("/a") / ("x" * 200 + end), {}) for end in "ab")
    assert len(one) == len(two) == 64 and one != two


PATHS = st.lists(st.sampled_from(["a", "b", "1", "transformers", "a b", "a-b", "x" * 70]), min_size=1, max_size=4)


@given(st.lists(PATHS.map(lambda parts: "/" + "/".join(parts)), min_size=1, max_size=6, unique=True))
def test_different_folders_never_share_a_name(paths):
    specs = [ModelSpec(folder_name.name_of(Path(path), {}), {}, 8, path=path) for path in paths]
    named = folder_name.told_apart(specs, [])
    assert len({spec.name for spec in named}) == len(paths)
    assert all(len(spec.name) <= 64 for spec in named)
    for before, after in zip(specs, named, strict=True):
        if [spec.name for spec in specs].count(before.name) == 1:
            assert after == before


def test_a_model_of_the_list_keeps_its_name(shipped, tmp_path):
    folder = tmp_path / "mine" / "phi-2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 8}))
    assert [spec.name for spec in parse.models_of(["phi-2", str(folder)], catalog.load())] == ["phi-2", "mine-phi-2"]


def test_a_record_has_no_two_models_of_one_name():
    """A folder that was moved is the same model; one of another architecture is not."""
    kept = ModelSpec("mine", {"model_type": "llama"}, 8, path="/a/mine")
    rows = [row(cell=cell(model=kept))]
    plan.check_names([ModelSpec("mine", {"model_type": "llama"}, 8, path="/b/mine")], rows)
    plan.check_names([ModelSpec("mine", {"model_type": "phi"}, 8, path="/a/mine")], rows)  # its config was edited
    with pytest.raises(UserError, match="/b/mine: the record has rows of another model called mine, of /a/mine"):
        plan.check_names([ModelSpec("mine", {"model_type": "phi"}, 8, path="/b/mine")], rows)
