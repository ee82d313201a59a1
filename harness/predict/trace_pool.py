"""Traces by cell, each made once: kept in the user's cache folder, made in processes of their own.

The caller needs no torch: child processes trace (harness.predict.tracer). A file's name is a hash of all that its
trace depends on: model, precision, recipe, context, kind of device, and versions.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Queue
from threading import Thread
from typing import Any

from harness import files
from harness.catalog.accelerators import CPU, Accelerator
from harness.catalog.kernels import AUTO
from harness.catalog.precisions import Precision
from harness.errors import UserError
from harness.predict.roofline import Trace
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import from_stored, to_stored
from harness.workers.local import AskFailed, LocalExecutor

_RULE = 7  # raised when tracing changes, so that older cached traces are not used
_FLASH_FROM = (8, 0)  # compute capability
MATH_ATTENTION = "cuda-7-math"  # a kind of device
TRACE, IMPORTED = "harness.predict.tracer:trace_job", "harness.predict.tracer:imported_job"
UNSEEN = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # tracing sees no card, and computes on one core
_Answers = Queue[tuple["TraceKey", dict[str, Any]]]


@dataclass(frozen=True)
class TraceKey:
    """What is traced. `kind` is cpu, cuda, or a card before compute capability 8.0: cuda-7 without flash attention,
    cuda-7-math without any fused attention."""

    spec: ModelSpec
    precision: Precision
    compute_dtype: str
    recipe: Recipe
    context: int
    kind: str

    def key(self, versions: dict[str, str]) -> str:
        # Fields that do not change a micro-step are set to one value.
        recipe = replace(
            self.recipe, sequences_per_step=0, data_parallel=1, layer_split=1, learning_rate=0.0, kernels=AUTO
        )
        parts = [
            self.spec.architecture,
            to_stored(self.precision),
            self.compute_dtype,
            to_stored(recipe),
            self.context,
            self.kind,
            versions,
            _RULE,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def kind_of(accelerator: Accelerator, compute_dtype: str) -> str:
    """The kind of device that a step in `compute_dtype` is traced for: torch's attention there depends on both.

    Before compute capability 8.0 neither flash nor efficient attention takes bf16 (torch's sdp_utils.cpp,
    `less_than_sm80_mem_efficient_dtypes`), and what is left holds tokens x tokens.
    """
    if accelerator.kind == CPU or not accelerator.capability:
        return accelerator.kind
    if tuple(map(int, accelerator.capability.split("."))) >= _FLASH_FROM:
        return accelerator.kind
    return MATH_ATTENTION if compute_dtype == "bf16" else "cuda-7"


def load_trace(key: TraceKey, versions: dict[str, str]) -> Trace | None:
    """The kept trace; None where it has to be made."""
    return files.read_cache(_name(key, versions), _kept_trace)


def _kept_trace(raw: Any) -> Trace:
    """Raises ValueError for what is no trace of a training step."""
    trace = from_stored(raw, Trace)
    if not trace.flops > 0 or not trace.memory.weights:
        raise ValueError("a trace without work or weights")
    return trace


def keep(key: TraceKey, versions: dict[str, str], answer: dict[str, Any]) -> Trace | str:
    """The trace in the `answer` of a process that traced, written to the cache; or why there is none."""
    if "unsupported" in answer:
        return answer["unsupported"]
    files.write_cache(_name(key, versions), answer)
    return from_stored(answer, Trace)


def imported_bytes(versions: dict[str, str], ask: Callable[[str, Any], dict[str, Any]] | None = None) -> int:
    """Resident bytes of a process that has imported what a step needs, which differ by the build of torch: the kept
    number, else that of `ask` (an executor's), which is kept; 0 where there is neither."""
    name = f"imported/{hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]}.json"
    if (kept := files.read_cache(name, _size)) or ask is None:
        return kept or 0
    try:
        size = _size(ask(IMPORTED, None).get("bytes"))
    except (AskFailed, UserError, ValueError):
        return 0
    files.write_cache(name, size)
    return size


def _size(raw: Any) -> int:
    """Raises ValueError for what is no number of bytes."""
    if type(raw) is not int or raw < 0:
        raise ValueError("no number of bytes")
    return raw


def _name(key: TraceKey, versions: dict[str, str]) -> str:
    return f"traces/{key.key(versions)}.json"


class TracePool:
    """Processes that trace, one per core at most: started when needed, kept until the `with` block ends.

    They see no card, and compute on one core each.
    """

    def __init__(self, versions: dict[str, str], executor: Callable[[], LocalExecutor] | None = None):
        self._new = executor or (lambda: LocalExecutor(environment=UNSEEN))
        self.versions = versions
        self.executors: list[LocalExecutor] = []

    def __enter__(self) -> "TracePool":
        return self

    def __exit__(self, *_: object) -> None:
        for executor in self.executors:
            executor.close()

    def trace_all(
        self, keys: Sequence[TraceKey], on_done: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Trace | str]:
        """The trace of each key, or why there is none.

        Those of one model, precision and recipe are traced one after the other, for it is then built once.
        """
        # Cached traces first; the rest in groups that share a model.
        names = [key.key(self.versions) for key in keys]
        traces: dict[str, Trace | str] = {}
        groups: dict[str, list[TraceKey]] = {}
        for name, key in dict(zip(names, keys, strict=True)).items():
            if (cached := load_trace(key, self.versions)) is not None:
                traces[name] = cached
            else:
                groups.setdefault(replace(key, context=0).key(self.versions), []).append(key)
        total, waiting = sum(map(len, groups.values())), list(groups.values())
        answers: _Answers = Queue()
        if total:
            on_done(0, total)
            # A thread per process hands it groups; answers come back in any order.
            for _ in range(min(len(groups), os.cpu_count() or 1) - len(self.executors)):
                self.executors.append(self._new())
            for executor in self.executors:
                Thread(target=_work, args=(executor, waiting, answers), daemon=True).start()
            for done in range(1, total + 1):
                key, answer = answers.get()
                traces[key.key(self.versions)] = keep(key, self.versions, answer)
                on_done(done, total)
        return [traces[name] for name in names]


def trace_all(
    keys: Sequence[TraceKey],
    versions: dict[str, str],
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trace | str]:
    """As `TracePool.trace_all`, with processes of its own."""
    with TracePool(versions) as pool:
        return pool.trace_all(keys, on_done)


def _work(executor: LocalExecutor, waiting: list[list[TraceKey]], answers: _Answers) -> None:
    """Takes groups from `waiting` until none is left, and puts (key, answer) of each member into `answers`."""
    while True:
        try:
            # list.pop is atomic, so the threads need no lock.
            group = waiting.pop(0)
        except IndexError:
            return
        for key in group:
            try:
                answers.put((key, executor.ask(TRACE, to_stored(key))))
            except (AskFailed, UserError) as problem:
                answers.put((key, {"unsupported": f"the process that traces ended: {problem}; try `harness doctor`"}))
