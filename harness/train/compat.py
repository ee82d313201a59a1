"""Set-up of transformers, peft, bitsandbytes and the allocator: no notices, clear errors, freed memory kept."""

import ctypes
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial, wraps
from types import ModuleType
from typing import Any

import torch
import transformers
from transformers import masking_utils

from harness.errors import Unsupported, first_line
from harness.train import meta_autocast

# Our batches have no padding. transformers looks for it in every forward of some models, which waits for the device,
# and cannot be done without storage.
transformers.PreTrainedModel.warn_if_padding_and_no_attention_mask = lambda self, *_: None  # type: ignore[method-assign]

# transformers 5.0 has no such attribute where a config.json leaves it out, and builds no Phi then.
if not hasattr(transformers.PreTrainedConfig, "pad_token_id"):
    transformers.PreTrainedConfig.pad_token_id = None  # type: ignore[attr-defined]


class quiet(warnings.catch_warnings):
    """Context without the libraries' notices, which are of no use to the user of this program."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        # When imported, bitsandbytes warns on stderr that it lacks the hub's kernels (backends/cpu/ops.py in 0.50).
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def import_peft() -> ModuleType:
    """The module peft. Its import imports bitsandbytes, so that it has to be quiet."""
    with quiet(), compiled_when_called():
        import peft
    return peft


@contextmanager
def compiled_when_called() -> Iterator[None]:
    """Within it, what is decorated with torch.compile is compiled when it is called first.

    torch.compile itself imports all of Inductor, a fifth of what a process needs to start, and bitsandbytes decorates
    functions that most processes never call.
    """
    original = torch.compile

    def compile_later(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return partial(compile_later, **options)
        compiled = lru_cache(maxsize=1)(lambda: original(function, **options))
        return wraps(function)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later  # type: ignore[assignment]  # for a while
    try:
        yield
    finally:
        torch.compile = original  # type: ignore[assignment]


@contextmanager
def without_storage() -> Iterator[None]:
    """Within it, transformers and PEFT run on the meta device: they look for packed sequences in the position ids,
    which have no values there, and ask for torch.autocast, which refuses that device (harness.train.meta_autocast
    stands for it), and in torch 2.6 and 2.7 whether it is on, which is refused too."""
    original, find_packed = torch.autocast, masking_utils.find_packed_sequence_indices
    original_enabled = torch.is_autocast_enabled

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return (meta_autocast.region if device_type == "meta" else partial(original, device_type))(*args, **kwargs)

    def is_autocast_enabled(*device_type: str) -> bool:
        if meta_autocast.current() is not None:  # PEFT and bitsandbytes ask without naming the device
            return device_type in ((), ("meta",))
        return device_type != ("meta",) and original_enabled(*device_type)

    torch.autocast = autocast  # type: ignore[misc, assignment]  # for a while
    torch.is_autocast_enabled = is_autocast_enabled  # type: ignore[assignment]
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        torch.autocast, torch.is_autocast_enabled = original, original_enabled  # type: ignore[misc]
        masking_utils.find_packed_sequence_indices = find_packed


def bitsandbytes_for(device: torch.device) -> ModuleType:
    """The module bitsandbytes, ready for `device`. Raises Unsupported where it is missing or cannot use the card."""
    try:
        with quiet(), compiled_when_called():
            import bitsandbytes
    except ImportError as problem:
        raise Unsupported(f"bitsandbytes does not start: {first_line(problem)}; pip install bitsandbytes") from None
    # Where its CUDA library does not load, it says so on stderr alone and fails at the first call.
    if device.type == "cuda" and getattr(bitsandbytes.cextension.lib, "compiled_with_cuda", False) is not True:
        raise Unsupported("bitsandbytes has no library for this CUDA; try `python -m bitsandbytes`")
    return bitsandbytes


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3), glibc


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Lets glibc keep freed memory for this process's next tensors; does nothing with another C library.

    By default glibc returns blocks above a few MiB to the system, so that the result of every operation is faulted in
    anew, page by page: a twentieth of a step.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
