"""What numbers depend on besides the device: the libraries' versions and the harness's own commit."""

import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def versions() -> dict[str, str]:
    """Versions of the libraries that measurements depend on, read without importing them."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """The harness's own commit; None where it does not run from a checkout."""
    try:
        git = subprocess.run(
            ("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"), capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip() or None if git.returncode == 0 else None
