"""What numbers depend on besides the device: the libraries' versions and the harness's own commit."""

import re
import subprocess
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
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
    # pip's metadata may lack the build, as in "2.13.0+cu130", which torch itself has.
    if own := _torch_version():
        installed["torch"] = own
    return installed


def _torch_version() -> str | None:
    """torch.__version__, read from its file; None where there is none."""
    with suppress(ImportError, ValueError, OSError):
        spec = find_spec("torch")
        if spec and spec.origin:
            text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
            version = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
            return version[1] if version else None
    return None


def commit() -> str | None:
    """The harness's own commit; None where it does not run from a checkout."""
    try:
        git = subprocess.run(
            ("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"), capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip() or None if git.returncode == 0 else None
