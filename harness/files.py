"""Files that are replaced whole or not at all, reading of files from anywhere, and the user's cache of results that
take time to compute."""

import errno
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import UserError

T = TypeVar("T")
MOST_BYTES = 1 << 30  # of a file that is read whole; a record of 100,000 rows has a fifth of that
_DEEPEST = 64  # levels of lists and mappings; what is read is walked by recursion
_READER_WITHIN_S = 3.0
_PART = ".ttft-bench.tmp"  # the end of the name of a file that is not whole yet


def replace_atomically(path: Path, content: str | bytes, make_folder: bool = False) -> None:
    """Writes `content` to `path` and flushes it to disk; readers see the old file or the new one, never a part.

    `make_folder` makes the folder too. Raises UserError where it cannot be written, and where a link, a device or a
    pipe lies there; what was there is then as it was.
    """
    part = None
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(mode := path.lstat().st_mode) and not stat.S_ISDIR(mode):
                raise UserError(
                    f"{path}: is a link, a device or a pipe, and no regular file: remove it, or name another"
                )
        _remove_abandoned(path)
        handle, part = _new_part(path)
        with os.fdopen(handle, "wb") as file:
            file.write(_encoded(content))
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)  # its lock is held until then
    except OSError as problem:
        if part:
            with suppress(OSError):
                part.unlink()
        raise _not_written(path, problem) from None


def _new_part(path: Path) -> tuple[int, Path]:
    """A new file, open and locked, beside `path`: a rename from another folder could be a copy. The system lets go of
    the lock when this process ends, however it does."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_beginning_of_part(path), suffix=_PART, dir=path.parent)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed = not os.fstat(handle).st_nlink
        except BlockingIOError:  # whoever removes abandoned ones took it for one, before it was locked
            removed = True
        except OSError:  # a file system without locks, where none is taken for abandoned
            removed = False
        if not removed:
            return handle, Path(name)
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Removes what processes have left that were killed while they wrote `path`: such a file is locked by nobody."""
    beside: list[Path] = []
    with suppress(OSError):  # a folder that may be written in and not listed
        beside = list(path.parent.iterdir())
    for part in beside:
        if part.name.startswith(_beginning_of_part(path)) and part.name.endswith(_PART):
            with suppress(OSError):  # still being written, done meanwhile, another user's, or no file
                handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
                finally:
                    os.close(handle)


def _beginning_of_part(path: Path) -> str:
    return f".{path.name[:40]}."


def write_output(path: Path, content: str | bytes) -> None:
    """Writes `content` to the path that a user gave: whole or not at all into a regular file (that a link names, too),
    as it is into a pipe or a device. Raises UserError where it cannot be written."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path}: is a link to nothing; name a file") from None
        mode = stat.S_IFREG
    except (OSError, ValueError) as problem:
        raise _not_written(path, problem) from None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        replace_atomically(path.resolve(), content)
        return
    try:
        # A pipe that nobody reads would block for ever.
        handle = _open_for_writing(path)
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as file:
            file.write(_encoded(content))
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise _not_written(path, problem) from None


def _open_for_writing(path: Path) -> int:
    until = time.monotonic() + _READER_WITHIN_S
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as problem:
            if problem.errno != errno.ENXIO or time.monotonic() > until:
                raise
        time.sleep(0.05)


def _encoded(content: str | bytes) -> bytes:
    # What has no UTF-8 (lone surrogates) is no reason to lose a file.
    return content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _not_written(path: Path, problem: Exception) -> UserError:
    reason = getattr(problem, "strerror", None) or problem
    return UserError(f"{path}: cannot be written ({reason}); name a folder that can be, or make room")


def user_path(text: str) -> Path:
    """The path that a user wrote, `~` and all. Raises UserError for the home folder of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such user's home folder") from None


def home_relative(path: Path) -> str:
    """`path` with `~` for the home folder, so that records name nobody's; `user_path` undoes it."""
    text, home = str(path), _home()
    return f"~{text[len(home) :]}" if home and text.startswith(f"{home}/") else text


def without_home(text: str) -> str:
    """`text` with `~` for the home folder wherever that stands in it."""
    home = _home()
    return text.replace(f"{home}/", "~/") if home else text


def _home() -> str:
    """The home folder, without a slash at its end; empty where there is none, or the root is."""
    try:
        return str(Path.home()).rstrip("/")
    except RuntimeError:
        return ""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of `path`. Raises OSError, also where it has more than `most` bytes or is a folder."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most >> 20} MiB", str(path))
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, and for one nested deeper than 64 levels."""
    try:
        value = _decoded(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    openings = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if openings <= _DEEPEST:
        return value
    level = [value]
    for _ in range(_DEEPEST):
        members = (member for item in level for member in (item.values() if isinstance(item, dict) else item))
        level = [member for member in members if isinstance(member, list | dict)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _decoded(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)  # three times as fast as json
    except msgspec.DecodeError:
        return json.loads(text)  # takes NaN, lone surrogates and other encodings too


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value of a JSON file. Raises OSError, and ValueError as `parse_json` does."""
    return parse_json(read_bytes(path, most))


def cache_folder() -> Path:
    """TTFT_BENCH_CACHE, or a folder of the user's cache; one in which nothing can be made where there is no home."""
    if folder := os.environ.get("TTFT_BENCH_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttft-bench"
    except RuntimeError:  # a user id without a name, as in a container, and no HOME
        return Path(os.devnull) / "ttft-bench"


def read_cache(name: str, read: Callable[[Any], T]) -> T | None:
    """What `read` makes of the value that `write_cache` wrote as `name`, as in "traces/f00.json".

    None where there is none, or one that `read` raises ValueError for: it is then computed again.
    """
    try:
        return read(read_json(cache_folder() / name))
    except (OSError, ValueError):
        return None


def write_cache(name: str, value: Any) -> None:
    """Writes `value` as JSON; on a full disk nothing is written, and the value is computed again next time."""
    with suppress(UserError):
        replace_atomically(cache_folder() / name, json.dumps(value), make_folder=True)
