"""What can be had again but takes time: JSON files in the user's cache folder, each whole or not there at all."""

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any


def cache_folder() -> Path:
    """TTFT_BENCH_CACHE, or a folder of the user's cache."""
    if said := os.environ.get("TTFT_BENCH_CACHE"):
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttft-bench"


def read_cache(name: str) -> Any:
    """What `keep` wrote as `name`, as in "traces/f00.json"; None where there is nothing that can be read."""
    try:
        return json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_cache(name: str, said: Any) -> None:
    """Writes `said`; a disk that is full costs only the time to have it again."""
    where = cache_folder() / name
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=where.parent, delete=False, encoding="utf-8") as part:
            part.write(json.dumps(said))
        Path(part.name).replace(where)
    except OSError:
        return
