"""The traces of the back-test, kept in results/reference/traces.json.gz: predicting all of its rows needs no torch.

They are kept under keys without the libraries' versions: as the ones traced that were installed when they were made.
`anew` makes them all again (minutes).
"""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.hardware.environment import versions
from harness.predict import trace_pool
from harness.predict.roofline import Trace
from harness.predict.trace_pool import TraceKey
from harness.records.stored import from_stored, to_stored

PATH = Path(__file__).parents[1] / "results" / "reference" / "traces.json.gz"
OnDone = Callable[[int, int], None]


class KeptTraces:
    """Kept traces and those made now; `write` keeps the ones that were asked for."""

    def __init__(self, path: Path = PATH, anew: bool = False):
        self.path = path
        self._kept: dict[str, Any] = {}
        if path.exists() and not anew:
            self._kept = json.loads(gzip.decompress(path.read_bytes()))
        self._used: set[str] = set()
        self.made = 0

    def trace_all(self, keys: Sequence[TraceKey], on_done: OnDone = lambda done, total: None) -> list[Trace | str]:
        """As harness.predict.trace_pool.trace_all, with the kept ones."""
        names = [key.key({}) for key in keys]
        missing = {name: key for name, key in zip(names, keys, strict=True) if name not in self._kept}
        made = trace_pool.trace_all(list(missing.values()), versions(), on_done)
        reasons = {}
        for name, trace in zip(missing, made, strict=True):
            if isinstance(trace, str):
                reasons[name] = trace
            else:
                self._kept[name] = _compact(trace)
                self.made += 1
        self._used.update(names)
        return [reasons[name] if name in reasons else from_stored(self._kept[name], Trace) for name in names]

    def write(self) -> None:
        """Sorted and without a time: the same traces give the same bytes."""
        used = {name: trace for name, trace in self._kept.items() if name in self._used}
        text = json.dumps(used, sort_keys=True, separators=(",", ":"))
        self.path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _compact(trace: Trace) -> dict[str, Any]:
    """The trace as stored, each operation as the list of its values (Trace.from_older reads it)."""
    stored = to_stored(trace)
    return {**stored, "ops": [list(op.values()) for op in stored["ops"]]}
