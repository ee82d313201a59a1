"""The job that traces a cell's micro-step, in a process that has torch; it keeps the model that it built last."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import psutil

from harness.errors import Unsupported, first_line
from harness.predict import flops, op_trace
from harness.predict.trace_pool import TraceKey
from harness.records.cell import NONE, ModelSpec, Recipe
from harness.records.measurement import FlopCount
from harness.records.stored import from_stored, to_stored
from harness.train import meta_model

_IMPORTED_BYTES = psutil.Process().memory_info().rss  # read while this is imported, before anything is built


def imported_job(payload: None, emit: Callable[..., None]) -> dict[str, int]:
    """What a process holds that has imported what a step needs: {"bytes": resident ones}."""
    return {"bytes": _IMPORTED_BYTES}


def trace_job(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """A `TraceKey`, as stored, to its trace with the FLOPs of a sequence, or {"unsupported": reason}."""
    key = from_stored(payload, TraceKey)
    try:
        # The FLOPs of a sequence are counted apart: the trace has attention as the kernel computes it.
        traced = op_trace.trace(_built(_model_of(key)), key.recipe, key.context, key.kind, key.compute_dtype)
        return to_stored(replace(traced, work=_work(key)))
    except Unsupported as problem:
        return {"unsupported": str(problem)}
    except NotImplementedError:  # by an operation whose result's shape depends on values
        return {"unsupported": "its step cannot be traced: what it computes depends on the tokens' values"}
    except Exception as problem:  # an architecture may fail anywhere in its own code: that is this model's row
        return {"unsupported": f"its step cannot be traced: {first_line(problem)}"}


def _model_of(key: TraceKey) -> str:
    """What the model is built from, as text: it serves every context."""
    return json.dumps(to_stored(replace(key, context=0)), sort_keys=True)


@lru_cache(maxsize=1)
def _built(text: str) -> Any:
    key = from_stored(json.loads(text), TraceKey)
    return meta_model.build_meta_model(key.spec, key.precision, key.compute_dtype, key.recipe, key.kind)


def _work(key: TraceKey) -> FlopCount:
    """FLOPs of the products of one sequence: as many at any precision and micro-batch, recomputed or not."""
    recipe = replace(key.recipe, micro_batch=1, gradient_checkpointing=NONE)
    return _counted(json.dumps([to_stored(key.spec), to_stored(recipe)], sort_keys=True))


@lru_cache(maxsize=4)
def _counted(text: str) -> FlopCount:
    spec, recipe = json.loads(text)
    return flops.count_flops(from_stored(spec, ModelSpec), from_stored(recipe, Recipe))[0]
