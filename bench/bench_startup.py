"""How long the verbs that need no device take to answer, in a fresh process each: make benchmarks.

Targets: --help, models and plan under 0.4 s, report under 1 s. A benchmark shows; nothing here fails on a clock.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = sorted((ROOT / "results" / "reference").glob("*/records.jsonl"))
VERBS = {"help": ["--help"], "models": ["models"], "plan": ["plan", "qwen-0.5b"]}
if REFERENCE:
    VERBS["report"] = ["report", "--results", str(REFERENCE[0].parent)]


@pytest.mark.parametrize("verb", VERBS)
def test_startup(benchmark, verb):
    command = [sys.executable, "-m", "harness", *VERBS[verb]]
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT), rounds=9, warmup_rounds=1
    )
