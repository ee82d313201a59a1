"""Where numbers come from and where they are kept: versions, the harness's commit, folders' names."""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

from harness.errors import UserError

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
RESULTS = Path("results")


def slug(text: str) -> str:
    """A folder's name from any text: lower case letters, digits and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64] or "device"


def versions() -> dict[str, str]:
    """Versions of the libraries that measurements depend on, read without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The harness's own commit, where it runs from a checkout."""
    try:
        said = subprocess.run(
            ("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"), capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None


def latest_folder(results: Path = RESULTS) -> Path:
    """The folder of `results` whose record is the newest. Raises UserError where there is none."""
    records = sorted(results.glob("*/records.jsonl"), key=os.path.getmtime)
    if not records:
        raise UserError(f"no record under {results}/; run `harness bench` first, or name its folder with --results")
    return records[-1].parent
