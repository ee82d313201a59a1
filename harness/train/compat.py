"""What every use of transformers and bitsandbytes here needs: silence, and one kind of failure."""

import warnings

import torch
import transformers


class Unsupported(Exception):
    """This model cannot be built or trained so here; the message says why."""


def bitsandbytes_for(device: torch.device):
    """The module, ready for `device`. Raises Unsupported where it is missing or cannot use the card."""
    try:
        with quiet():
            import bitsandbytes
    except ImportError as problem:
        raise Unsupported(f"bitsandbytes does not start: {first_line(problem)}; pip install bitsandbytes") from None
    # Where its CUDA library does not load it says so on stderr, and fails at the first call only.
    if device.type == "cuda" and getattr(bitsandbytes.cextension.lib, "compiled_with_cuda", False) is not True:
        raise Unsupported("bitsandbytes has no library for this CUDA; try `python -m bitsandbytes`")
    return bitsandbytes


def first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]


class quiet(warnings.catch_warnings):
    """Libraries' notices on how they are used, which say nothing to the user of this program."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
