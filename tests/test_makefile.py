"""The set-up of .venv by make, with a Python that installs nothing."""

import shutil
import subprocess
import sys

import pytest
from helpers.documents import ROOT


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    return tmp_path


def _setup(clone, script):
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return subprocess.run(["make", "setup", f"PYTHON={sys.executable}"], cwd=clone, capture_output=True, text=True)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_a_set_up_that_fails_says_what_it_needs_and_is_made_again(clone):
    failed = _setup(clone, "echo 'No space left on device' >&2; exit 1")
    error = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert failed.returncode == 2
    assert "No space left" in failed.stderr and len(error) == 1 and "room for 6.5 GB" in error[0]
    assert not (clone / ".venv" / ".ready").exists()
    assert _setup(clone, "exit 0").returncode == 0
    assert (clone / ".venv" / ".ready").exists()
