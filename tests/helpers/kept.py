"""Processes that answer questions, kept from one test to the next: torch and transformers are then imported once.

What is asked is answered as in a process of its own, for a job leaves nothing behind that another sees. Tests of the
processes themselves (FRESH_PROCESSES) have fresh ones, as every program has that a test starts; LocalExecutor.run, by
which models are trained, always starts its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from harness.workers.local import LocalExecutor
from harness.workers.process import SERVE

_MOST = 2  # kept without a task, for each holds hundreds of megabytes
# Variables that change from test to test, and no answer.
_NO_MATTER = {"PYTEST_CURRENT_TEST", "TTFT_BENCH_CACHE", "COLUMNS", "LINES", "NO_COLOR", "TERM"}


class _Kept(LocalExecutor):
    """With the methods as they are outside `Keeper.keeping`."""

    ask, close = LocalExecutor.ask, LocalExecutor.close


class Keeper:
    """Processes that wait to be asked, and those that an executor has."""

    def __init__(self) -> None:
        self._idle: list[tuple[tuple, _Kept]] = []
        self._lent: dict[LocalExecutor, tuple[tuple, _Kept]] = {}

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within it, a LocalExecutor that is closed leaves its process to the next one of the same environment."""
        ask, close = LocalExecutor.ask, LocalExecutor.close

        def ask_kept(executor, job, payload):
            return self._of(executor).ask(job, payload) if executor.command == SERVE else ask(executor, job, payload)

        def close_kept(executor):
            close(executor)
            self._back(executor)

        with mock.patch.object(LocalExecutor, "ask", ask_kept), mock.patch.object(LocalExecutor, "close", close_kept):
            yield

    def close(self) -> None:
        for _, kept in [*self._idle, *self._lent.values()]:
            kept.close()
        self._idle.clear()
        self._lent.clear()

    def _of(self, executor: LocalExecutor) -> _Kept:
        if executor not in self._lent:
            variables = {**os.environ, **(executor.environment or {})}
            setting = tuple(sorted((name, value) for name, value in variables.items() if name not in _NO_MATTER))
            same = next((entry for entry in self._idle if entry[0] == setting), None)
            if same:
                self._idle.remove(same)
            self._lent[executor] = same or (setting, _Kept(SERVE, executor.environment))
        return self._lent[executor][1]

    def _back(self, executor: LocalExecutor) -> None:
        setting, kept = self._lent.pop(executor, ((), None))
        if kept and kept._child:
            self._idle.append((setting, kept))
        while len(self._idle) > _MOST:
            self._idle.pop(0)[1].close()
