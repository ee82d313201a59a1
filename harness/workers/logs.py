"""What a child wrote to its standard error, as text that acts on no terminal."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.text import visible

_CHUNK = 1 << 16
_LONGEST = 300  # characters of a reason
# libstdc++'s terminate, bitsandbytes, CUDA's and the driver's own words.
_FATAL = re.compile(r"(?:what\(\):\s*|^(?=Error )|^(?=CUDA [Ee]rror)|^(?=NVRM: ))(.+)")


def make_visible(log: Path) -> None:
    """Writes out the control characters in `log`, which a model, a library or a data set may have put there.

    Carriage returns, by which progress bars draw over themselves, become newlines. Where that cannot be written the log
    stays as it is.
    """
    with suppress(OSError):
        if all(part == plain for part, plain in _parts(log)):
            return
        # Removed by whoever comes first after a kill; opened exclusively, so that no link is written through.
        whole = log.with_name(f"{log.name}.part")
        whole.unlink(missing_ok=True)
        with whole.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(plain for _, plain in _parts(log))
        whole.replace(log)


def last_line(log: Path) -> str:
    """The last line that is not empty, visible, 300 characters at most; it is what an exception says."""
    return next(_lines_from_end(log), "")


def fatal_line(log: Path) -> str:
    """What C++ code or a driver said last before it ended the process; empty where nothing did.

    Nothing raises there: a stack of addresses follows, or the line is the last one.
    """
    for line in _lines_from_end(log):
        if found := _FATAL.search(line):
            return found[1]
    return ""


def _lines_from_end(log: Path) -> Iterator[str]:
    """The lines that are not empty, the last one first, visible, 300 characters of each at most."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _CHUNK))
            text = file.read().decode("utf-8", errors="backslashreplace")
    except OSError:
        # Somebody tidied up while it ran: why the process died is then not known, but a row must say that it did.
        text = ""
    return (visible(line)[:_LONGEST] for line in reversed(text.splitlines()) if line.strip())


def _parts(log: Path) -> Iterator[tuple[str, str]]:
    """The text of `log` in parts, as it is and visible: a log may be larger than the memory."""
    with log.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
        while part := file.read(_CHUNK):
            yield part, visible(part.replace("\r\n", "\n").replace("\r", "\n"))
