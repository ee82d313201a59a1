"""Files that are replaced whole or not at all, and the user's cache of results that take time to compute."""

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError


def replace_atomically(path: Path, content: str | bytes, make_folder: bool = False) -> None:
    """Writes `content` to `path` and flushes it to disk; readers see the old file or the new one, never a part.

    `make_folder` makes the folder too. Raises UserError where it cannot be written; an older file is then as it was.
    """
    # A file of this thread's own in the same folder, for a rename across file systems would be a copy.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        with suppress(OSError):
            part.unlink()
        reason = problem.strerror or problem
        raise UserError(f"{path}: cannot be written ({reason}); name a folder that can be, or make room") from None


def cache_folder() -> Path:
    """TTFT_BENCH_CACHE, or a folder of the user's cache; one in which nothing can be made where there is no home."""
    if folder := os.environ.get("TTFT_BENCH_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttft-bench"
    except RuntimeError:  # a user id without a name, as in a container, and no HOME
        return Path(os.devnull) / "ttft-bench"


def read_cache(name: str) -> Any:
    """The value that `write_cache` wrote as `name`, as in "traces/f00.json"; None where none can be read."""
    try:
        return json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_cache(name: str, value: Any) -> None:
    """Writes `value` as JSON; on a full disk nothing is written, and the value is computed again next time."""
    with suppress(UserError):
        replace_atomically(cache_folder() / name, json.dumps(value), make_folder=True)
