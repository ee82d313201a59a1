"""Folders' names, and which record is the newest."""

import os

import pytest

from harness.errors import UserError
from harness.records.store import latest_folder, slug


def test_slugs_stay_inside_the_folder():
    assert slug("../../A [red]CPU/…") == "a-red-cpu"
    assert slug("///") == "device"


def test_latest_folder(tmp_path):
    with pytest.raises(UserError, match="harness bench"):
        latest_folder(tmp_path)
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records.jsonl").touch()
        os.utime(tmp_path / name / "records.jsonl", (i, i))
    assert latest_folder(tmp_path).name == "b"
