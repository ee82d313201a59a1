"""Commands that the scripts of this folder start: their lines as they come, and their end when the time is up."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
_GRACE_S = 5.0
_CODE = "exit code of the command: "


class TimeUp(Exception):
    """The time was over before the command's end."""


def harness(ends_at: float, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the real command line. Raises TimeUp at `ends_at` (of time.monotonic)."""
    output = list(lines(ends_at, [sys.executable, "-m", "harness", *arguments]))
    return int(output.pop().removeprefix(_CODE)), "\n".join(output)


def lines(ends_at: float, command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The command's lines, stdout and stderr, as they come, and one with its exit code.

    Raises TimeUp at `ends_at` (of time.monotonic). The command and what it started end then, and whenever the reader
    stops.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    whole_environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100", **(environment or {})}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=whole_environment, start_new_session=True)
        position, rest = 0, b""
        try:
            while True:
                ended = process.poll() is not None
                new = os.pread(log.fileno(), os.fstat(log.fileno()).st_size - position, position)
                position += len(new)
                *whole, rest = (rest + new).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
                if ended:
                    break
                if time.monotonic() > ends_at:
                    raise TimeUp
                time.sleep(0.1)
        finally:
            _end(process)
    if rest:
        yield rest.decode(errors="replace")
    yield f"{_CODE}{process.returncode}"


def _end(process: "subprocess.Popen") -> None:
    """Ends the command and what it started."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                continue
