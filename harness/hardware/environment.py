"""Where numbers come from and where they are kept: versions, the harness's commit, folders' names."""

import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


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
