"""What an exception says of the device: that its memory ran out, or that the card is lost to this process."""

from collections.abc import Iterator

import torch

from harness.errors import first_line
from harness.hardware import card_errors


def ran_out(problem: BaseException) -> bool:
    """Whether `problem`, or what it was raised from, means that memory of the device or of the machine ran out."""
    return any(
        isinstance(link, torch.OutOfMemoryError | MemoryError)
        or (_is_a_librarys(link) and card_errors.ran_out(str(link)))
        or _while_quantising(link)
        for link in _chain(problem)
    )


def lost(problem: BaseException) -> str | None:
    """A sentence with the remedy where `problem` means that this process can use its card no longer; else None."""
    sentences = (card_errors.lost(str(link)) for link in _chain(problem) if _is_a_librarys(link))
    return next((sentence for sentence in sentences if sentence), None)


def without_kernels(problem: BaseException) -> str | None:
    """A sentence where `problem` means that a library has no code for this card; else None."""
    for link in _chain(problem):
        if _is_a_librarys(link) and card_errors.without_kernels(str(link)):
            return f"a library was built without kernels for this card ({first_line(link)}); see `harness doctor`"
    return None


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    """`problem`, and the exceptions that it was raised from."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__


def _is_a_librarys(problem: BaseException) -> bool:
    """Whether torch, CUDA or the system raised it; the text of any other exception says nothing of the device."""
    return isinstance(problem, RuntimeError | OSError)


def _while_quantising(problem: BaseException) -> bool:
    """transformers replaces what goes wrong while it quantises by a sentence; the caching allocator counts it."""
    if "automatic conversion" not in str(problem).lower() or not torch.cuda.is_available():
        return False
    return torch.cuda.memory_stats().get("num_ooms", 0) > 0
