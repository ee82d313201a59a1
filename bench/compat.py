"""The main job and the step's comparisons in venvs of the versions that pyproject.toml allows, in one table.

Sets: `lowest` (every bound taken at its word), `kept-torch` (the lowest torch, as an image has it, with the newest of
all else: what `pip install .` makes there) and `newest`. Each is a venv under --folder, made by uv where there is one,
else by pip, and removed afterwards unless --keep is given. In each run: `harness bench arc-tiny`, a cell per precision;
every kernel against the plain step (bench.kernel_check); tests/test_train_check.py, and answers against those of
transformers' `generate`. Exit code 1 where one fails.

    make compat
    python -m bench.compat [--sets "lowest newest"] [--keep] [--python newest=/path/of/an/environment/bin/python]
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import commands
from harness.catalog.precisions import PRECISIONS
from harness.errors import first_line
from harness.records import store

LOWEST, KEPT_TORCH, NEWEST = "lowest", "kept-torch", "newest"
SETS = (LOWEST, KEPT_TORCH, NEWEST)
SHOWN = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "huggingface_hub", "numpy", "pandas")
STEP_TESTS = ["tests/test_train_check.py", "tests/test_catalog_models.py", "tests/test_tune_decode_generate.py"]
TEST_TOOLS = ["pytest", "pytest-timeout", "pytest-benchmark"]
_INSTALL_S, _JOB_S = 1800.0, 900.0
_VERSIONS = """
import json, sys
from importlib import metadata
print(json.dumps({name: metadata.version(name) for name in sys.argv[1:]}))
"""


def bounds(project: Path) -> dict[str, str]:
    """By name: the lower bound of each of the project's dependencies."""
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    matches = [re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", text) for text in dependencies]
    if not all(matches):
        raise ValueError(f"{project}: a dependency that is more than a lower bound")
    return {match[1]: match[2] for match in matches if match}


def install_commands(name: str, project: Path, folder: Path, uv: str | None) -> list[list[str]]:
    """The commands that make the venv `folder` with the set `name` of versions."""
    python = str(folder / "bin" / "python")
    lower = bounds(project)
    constraints = folder.with_suffix(".constraints.txt")
    pins = {LOWEST: lower, KEPT_TORCH: {"torch": lower["torch"]}, NEWEST: {}}[name]
    if uv:
        # uv finds the lowest release of each bound itself, where a release of exactly that number does not exist.
        pins = {} if name == LOWEST else pins
        resolution = ["--resolution", "lowest-direct"] if name == LOWEST else []
        compiled = str(folder.with_suffix(".txt"))
        make = [
            [uv, "venv", "-q", str(folder)],
            [uv, "pip", "compile", "-q", *resolution, "-c", str(constraints), "-o", compiled, str(project)],
            [uv, "pip", "install", "-q", "--python", python, "-r", compiled, *TEST_TOOLS],
        ]
    else:
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(constraints)]
        make = [[sys.executable, "-m", "venv", str(folder)], [*install, *lower, *TEST_TOOLS]]
    folder.parent.mkdir(parents=True, exist_ok=True)
    constraints.write_text("".join(f"{package}=={version}\n" for package, version in pins.items()), encoding="utf-8")
    return make


# ---- What runs in each venv; each returns a word for the table, and raises RuntimeError with what went wrong


def cells(python: str, folder: Path) -> str:
    """One cell of arc-tiny per precision by `harness bench`."""
    options = ["--contexts", "64", "--precisions", " ".join(PRECISIONS), "--sample-seconds", "2", "--device", "cpu"]
    results = folder / "results"
    command = [python, "-m", "harness", "bench", "arc-tiny", *options, "--no-accuracy", "--force", "--fresh"]
    output, code = _run([*command, "--results", str(results)], folder)
    rows = [row for path in results.rglob(store.NAME) for row in store.read(path)[0]]
    failed = [f"{row.cell.label}: {row.status}: {row.reason}" for row in rows if not row.ok]
    if failed or code or len(rows) < len(PRECISIONS):
        raise RuntimeError("; ".join(failed) or f"code {code}, {len(rows)} rows: {output[-400:]}")
    return f"{len(rows)} cells"


def kernels(python: str, folder: Path) -> str:
    """Every kernel against the plain step, in fp32, bf16 and int4."""
    output, code = _run(
        [python, "-m", "bench.kernel_check", "--device", "cpu", "--precisions", "fp32 bf16 int4"], folder
    )
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    wrong = [f"{one['subject']}: {one['text']}" for one in found if one["held"] is False]
    if wrong or code or not found:
        raise RuntimeError("; ".join(wrong) or f"code {code}: {output[-400:]}")
    return f"{sum(one['held'] is True for one in found)} equal"


def steps(python: str, folder: Path) -> str:
    """Steps of ten architectures against the plain step, the sizes of all models of models.yaml, and answers."""
    options = ["-q", "-o", "addopts=", "-W", "default", "-p", "no:cacheprovider", "--show-capture=no"]
    output, code = _run([python, "-m", "pytest", *options, *STEP_TESTS], folder)
    last = output.strip().splitlines()[-1] if output.strip() else ""
    if code:
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise RuntimeError("; ".join(failed) or f"code {code}: {output[-400:]}")
    return re.sub(r",.*| in .*", "", last)


CHECKS: tuple[Callable[[str, Path], str], ...] = (cells, kernels, steps)


def _run(command: list[str], folder: Path) -> tuple[str, int]:
    environment = {"OMP_NUM_THREADS": "1", "TTFT_BENCH_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    *output, last = commands.lines(time.monotonic() + _JOB_S, command, environment)
    return "\n".join(output), int(last.rpartition(" ")[2])


def columns(names: list[str], pythons: dict[str, str], folder: Path, keep: bool) -> Iterator[dict[str, str]]:
    """Per set: {"set", versions by library, result by check}; what fails is a sentence."""
    for name in names:
        column, venv = {"set": name}, folder / name
        try:
            python = pythons.get(name)
            if python is None:
                for command in install_commands(name, commands.ROOT / "pyproject.toml", venv, shutil.which("uv")):
                    subprocess.run(command, check=True, timeout=_INSTALL_S, capture_output=True, text=True)
                python = str(venv / "bin" / "python")
            versions = subprocess.run([python, "-c", _VERSIONS, *SHOWN], check=True, capture_output=True, text=True)
            column |= json.loads(versions.stdout)
            for check in CHECKS:
                with tempfile.TemporaryDirectory() as job:
                    try:
                        column[check.__name__] = check(python, Path(job))
                    except (RuntimeError, commands.TimeUp) as problem:
                        column[check.__name__] = f"FAILED {problem or 'the time was up'}"
        except (OSError, subprocess.SubprocessError) as problem:
            detail = (getattr(problem, "stderr", "") or "").strip().splitlines()
            column["install"] = f"FAILED {detail[-1] if detail else first_line(problem)}"
        finally:
            if not keep:
                shutil.rmtree(venv, ignore_errors=True)
        yield column


def table(rows: list[dict[str, str]]) -> str:
    """A column per set; what failed stands below in full."""
    names = [*SHOWN, "install", *(check.__name__ for check in CHECKS)]
    failed = [f"{row['set']}, {name}: {row[name]}" for row in rows for name in names if _failed(row.get(name, ""))]
    lines = [("", *(row["set"] for row in rows))]
    for name in names:
        if any(name in row for row in rows):
            words = (row.get(name, "-") for row in rows)
            lines.append((name, *("FAILED" if _failed(word) else word for word in words)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *([""] if failed else []), *failed])


def _failed(word: str) -> bool:
    return word.startswith("FAILED")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", default=" ".join(SETS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ttft-bench-compat")
    parser.add_argument("--keep", action="store_true", help="leave the venvs, 6 GB each")
    parser.add_argument("--python", action="append", default=[], help="SET=PATH: an environment that is there already")
    options = parser.parse_args()
    names = options.sets.split()
    pythons = dict(text.split("=", 1) for text in options.python if "=" in text)
    if unknown := [name for name in (*names, *pythons) if name not in SETS]:
        parser.error(f"no set is called {unknown[0]}; there are {', '.join(SETS)}")
    rows = []
    for column in columns(names, pythons, options.folder, options.keep):
        rows.append(column)
        print(column, file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    sys.exit("FAILED" in text)


if __name__ == "__main__":
    main()
