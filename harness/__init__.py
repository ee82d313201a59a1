"""Which small LLM can be test-time fine-tuned inside a budget of hours, on the hardware at hand."""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# CUDA then numbers cards as NVML and nvidia-smi do, in this process as in those that it starts: on a machine of
# different cards cuda:0 would else be another one here. Read when CUDA starts, so it is set before torch is imported.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

__version__ = "0.1.0"
__all__ = ["Imported", "Predictions", "Record", "Solved", "UserError", "bench", "compare", "import_log", "load",
           "predict", "solve", "ttft"]  # fmt: skip

_PLACES = {"UserError": "harness.errors"}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used (PEP 562): `import harness` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "harness.api")), name)


class _Verb(ModuleType):
    """A package that has a verb's name, as harness.predict: it is called as the function of that name."""

    def __call__(self, *names: Any, **options: Any) -> Any:
        return getattr(import_module("harness.api"), self.__name__.rpartition(".")[2])(*names, **options)


class _Package(ModuleType):
    """This module. Whoever imports a package of it sets that as an attribute here, where a function had its name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
