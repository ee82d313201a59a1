"""Looks at the device and the models before anything is measured: python -m harness.measure.inspector.

Answers one JSON line to each JSON line asked, so that the sweep itself never imports torch and asks only for what it
still has to know: {"ask": "device", ...}, {"ask": "rates", ...}, {"ask": "work", ...},
{"ask": "trace", ...}.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from harness.errors import UserError
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import from_stored, to_stored


@lru_cache(maxsize=1)
def _tracing() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One for the whole sweep, for it keeps the model that it built last."""
    from harness.predict.tracer import answerer

    return answerer()


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question; {"error": ...} where the user must act, {"unsupported": ...} where a model is not."""
    kind = question["ask"]
    if kind == "device":
        from harness.hardware.device import choose

        return to_stored(choose(question["device"], gpus=question.get("gpus", 1)))
    if kind == "rates":
        import torch

        from harness.hardware.probe import rates

        return {
            name: to_stored(rate) for name, rate in rates(torch.device(question["device"]), question["dtypes"]).items()
        }
    if kind == "trace":
        return _tracing()(question["subject"])
    from harness.errors import Unsupported
    from harness.predict.flops import count

    model = question["model"]
    try:
        work, params = count(from_stored(model, ModelSpec), from_stored(question["recipe"], Recipe))
    except Unsupported as problem:
        return {"unsupported": str(problem)}
    except Exception as problem:  # an architecture may fail anywhere in its own code: that is this model's row
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        return {"unsupported": f"its FLOPs cannot be counted: {reason}"}
    return {"work": to_stored(work), "params": params}


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            said = answer(json.loads(line))
        except UserError as problem:
            said = {"error": str(problem)}
        except ImportError as problem:
            said = {"error": f"{problem}; install what is missing: pip install ."}
        out.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
