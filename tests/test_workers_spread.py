"""Pieces of work over several executors: each once, in order, and an end for all where one fails."""

import threading
import time

import pytest

from harness.errors import UserError
from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.spread import spread


class Executor:
    def __init__(self):
        self.pieces, self.stopped = [], threading.Event()

    def stop(self):
        self.stopped.set()

    def resume(self):
        pass


def test_results_keep_the_order_of_the_pieces_and_every_executor_works():
    executors = [Executor() for _ in range(3)]
    together = threading.Barrier(3, timeout=10)

    def do(piece, executor):
        executor.pieces.append(piece)
        if piece < 3:
            together.wait()  # three are at work at once
        return piece * piece

    assert spread(range(7), executors, do) == [0, 1, 4, 9, 16, 25, 36]
    assert sorted(piece for executor in executors for piece in executor.pieces) == list(range(7))
    assert all(executor.pieces for executor in executors)


def test_one_executor_needs_no_thread():
    here = threading.get_ident()
    assert set(spread(range(3), [Executor()], lambda piece, executor: threading.get_ident())) == {here}


def test_the_first_failure_stops_what_is_at_work_and_begins_nothing_more():
    executors, begun = [Executor(), Executor()], []

    def do(piece, executor):
        begun.append(piece)
        if piece == 1:
            raise ValueError("the disk is full")
        if not executor.stopped.wait(10):
            raise AssertionError("it was not stopped")
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(ValueError, match="the disk is full"):
        spread(range(6), executors, do)
    assert sorted(begun) == [0, 1] and time.monotonic() - began < 9
    assert all(executor.stopped.is_set() for executor in executors)


def test_after_a_failure_executors_run_again_and_after_an_interruption_they_do_not(tmp_path):
    """A job that is no job is an outcome; one on an executor that was stopped is none."""
    executors = [LocalExecutor() for _ in range(2)]

    def ends(executor):
        return executor.run("no:job", None, RunLimits(log=tmp_path / "log")).status

    def fail(problem):
        def do(piece, executor):
            raise problem

        return do

    executors[0].stop()  # by somebody else, who has not taken it back
    with pytest.raises(UserError):
        spread(range(2), [*executors, executors[1]], fail(UserError("mend this")))
    assert ends(executors[1]) == "crashed"
    with pytest.raises(KeyboardInterrupt):
        ends(executors[0])
    with pytest.raises(KeyboardInterrupt):
        spread(range(2), executors, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ends(executors[1])
