"""Which small LLM can be test-time fine-tuned inside a budget of hours, on the hardware at hand."""

import os
from typing import Any

# CUDA then numbers cards as NVML and nvidia-smi do, in this process as in those that it starts: on a machine of
# different cards cuda:0 would else be another one here. Read when CUDA starts, so it is set before torch is imported.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

__version__ = "0.1.0"
__all__ = ["Predictions", "Record", "UserError", "bench", "load", "predict", "ttft"]

_PLACES = {"UserError": "harness.errors"}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used (PEP 562): `import harness` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES.get(name, "harness.api")), name)
