"""Traces cells in a process that has torch: python -m harness.predict.tracer, a JSON line for each JSON line."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from harness.catalog.precisions import Precision
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import from_stored, to_stored


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answer = answerer()
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")


def answerer() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from a subject, as JSON, to its trace; it keeps the model that it built last."""
    last: list[Any] = [None, None]

    def answer(said: dict[str, Any]) -> dict[str, Any]:
        from harness.errors import Unsupported
        from harness.predict import op_trace
        from harness.train import meta_model

        spec, recipe = from_stored(said["spec"], ModelSpec), from_stored(said["recipe"], Recipe)
        built = (spec, said["precision"]["name"], said["compute_dtype"], recipe, said["kind"])
        try:
            if last[0] != built:
                last[:] = [None, None]
                model = meta_model.build(
                    spec, from_stored(said["precision"], Precision), said["compute_dtype"], recipe, said["kind"]
                )
                last[:] = [built, model]
            return to_stored(op_trace.traced(last[1], recipe, said["context"], said["kind"]))
        except Unsupported as problem:
            return {"unsupported": str(problem)}
        except Exception as problem:  # an architecture may fail anywhere in its own code: that is this model's row
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            return {"unsupported": f"its step cannot be traced: {reason}"}

    return answer
