"""Work over several executors: each takes the next piece when it is free."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def spread(pieces: Sequence[T], executors: Sequence[Any], do: Callable[[T, Any], R]) -> list[R]:
    """`do(piece, executor)` of every piece, in the order of `pieces`; as many at once as there are executors.

    Where one raises, or this thread is interrupted, the executors are stopped and what is at work ends; then the first
    exception is raised. After a failure, but not after an interruption, they may be used again. A single executor needs
    no thread.
    """
    if len(executors) == 1 or len(pieces) < 2:
        return [do(piece, executors[0]) for piece in pieces]
    free: SimpleQueue[Any] = SimpleQueue()
    for executor in executors:
        free.put(executor)

    def one(piece: T) -> R:
        executor = free.get()
        try:
            return do(piece, executor)
        finally:
            free.put(executor)

    threads = ThreadPoolExecutor(len(executors))
    try:
        futures = [threads.submit(one, piece) for piece in pieces]
        # The first failure ends all; without one all are done.
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if future.exception()]
        if failed:
            raise failed[0].exception()  # type: ignore[misc]
    except BaseException as problem:
        for executor in executors:
            executor.stop()
        threads.shutdown(wait=True, cancel_futures=True)
        # After a failure there may be other work for them; an interruption is the end of all.
        if isinstance(problem, Exception):
            for executor in executors:
                executor.resume()
        raise
    threads.shutdown(wait=True)
    return [future.result() for future in futures]
