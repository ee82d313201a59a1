"""Traces by cell, each made once: kept in the user's cache folder, made in processes of their own.

Whoever asks needs no torch; a process that has it answers (python -m harness.predict.trace_pool: a JSON line for each
JSON line). What a trace depends on names its file: model, precision, recipe, context, kind of device, and versions.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from harness import files
from harness.catalog.accelerators import CPU, Accelerator
from harness.catalog.kernels import AUTO
from harness.catalog.precisions import Precision
from harness.predict.roofline import Trace
from harness.predict.tracer import main
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import from_stored, to_stored

_RULE = 2  # raised when tracing changes: what is kept was traced in another way
_FLASH_FROM = (8, 0)  # compute capability
_DIED = {"unsupported": "the process that traces ended without a word; try `harness doctor`"}


@dataclass(frozen=True)
class TraceKey:
    """What is traced. `kind` is cpu, cuda, or cuda-7: a card before compute capability 8.0, without flash attention."""

    spec: ModelSpec
    precision: Precision
    compute_dtype: str
    recipe: Recipe
    context: int
    kind: str

    def key(self, versions: dict[str, str]) -> str:
        # What says nothing of a micro-step is left out.
        silent = {"sequences_per_step": 0, "data_parallel": 1, "layer_split": 1, "learning_rate": 0.0, "kernels": AUTO}
        recipe = to_stored(replace(self.recipe, **silent))
        said = [
            self.spec.architecture,
            to_stored(self.precision),
            self.compute_dtype,
            recipe,
            self.context,
            self.kind,
            versions,
            _RULE,
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


def kind_of(on: Accelerator) -> str:
    if on.kind == CPU or not on.capability:
        return on.kind
    return on.kind if tuple(map(int, on.capability.split("."))) >= _FLASH_FROM else "cuda-7"


def load_trace(subject: TraceKey, versions: dict[str, str]) -> Trace | None:
    """The kept trace; None where it has to be made."""
    try:
        return from_stored(files.read_cache(_name(subject, versions)), Trace)
    except ValueError:  # not there, or of another version
        return None


def save_trace(subject: TraceKey, versions: dict[str, str], said: dict[str, Any]) -> None:
    files.write_cache(_name(subject, versions), said)


def _name(subject: TraceKey, versions: dict[str, str]) -> str:
    return f"traces/{subject.key(versions)}.json"


class TracePool:
    """The processes that trace, one a core at most: started when needed, kept for the next question; for a `with`."""

    def __init__(self, versions: dict[str, str]):
        self.versions, self.processes = versions, []

    def __enter__(self) -> "TracePool":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            with process:
                pass

    def all_of(
        self, subjects: Sequence[TraceKey], on_done: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Trace | str]:
        """The trace of each subject, or why there is none.

        Those of one model, precision and recipe are traced one after the other, for it is then built once.
        """
        keys = [subject.key(self.versions) for subject in subjects]
        found: dict[str, Trace | str] = {}
        groups: dict[str, list[TraceKey]] = {}
        for key, each in dict(zip(keys, subjects, strict=True)).items():
            if (known := load_trace(each, self.versions)) is not None:
                found[key] = known
            else:
                groups.setdefault(replace(each, context=0).key(self.versions), []).append(each)
        total, waiting, said = sum(map(len, groups.values())), list(groups.values()), Queue()
        if total:
            on_done(0, total)
            for _ in range(min(len(groups), os.cpu_count() or 1) - len(self.processes)):
                self.processes.append(_start())
            threads = [Thread(target=_work, args=(p, waiting, said), daemon=True) for p in self.processes]
            for thread in threads:
                thread.start()
            for done in range(1, total + 1):
                each, answer = said.get()
                if "unsupported" not in answer:
                    save_trace(each, self.versions, answer)
                found[each.key(self.versions)] = answer.get("unsupported") or from_stored(answer, Trace)
                on_done(done, total)
        return [found[key] for key in keys]


def trace_all(
    subjects: Sequence[TraceKey],
    versions: dict[str, str],
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trace | str]:
    """As `Tracers.all_of`, with processes of its own."""
    with TracePool(versions) as tracers:
        return tracers.all_of(subjects, on_done)


def _start() -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.predict.trace_pool"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def _work(process: subprocess.Popen, waiting: list[list[TraceKey]], said: Queue) -> None:
    """Takes groups from `waiting` until none is left, and puts (subject, answer) of each member into `said`."""
    while True:
        try:
            group = waiting.pop(0)
        except IndexError:
            return
        for subject in group:
            try:
                process.stdin.write(json.dumps(to_stored(subject)) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except (OSError, ValueError):
                line = ""
            said.put((subject, json.loads(line) if line else _DIED))


if __name__ == "__main__":
    main()
