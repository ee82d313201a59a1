"""The header of a GGUF file: its metadata and its table of tensors, without their values.

The format is that of ggml's docs/gguf.md, versions 2 and 3, little endian: "GGUF", a version, two counts, pairs of key
and value, then for each tensor name, dimensions, type and offset. Long lists of words are stepped over and counted, so
that a vocabulary of 150,000 tokens takes a fifth of a second (gguf's own reader: several). A file may come from
anywhere, so every count is checked against the bytes that are there.
"""

import errno
import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _LIST = 8, 9
# Types of values -> struct's letters.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MOST_DIMENSIONS = 8
_MOST_KEPT = 1024  # numbers of a list; of a longer one, and of one of words, the length is kept
_ALIGNMENT = 32


class BadHeader(ValueError):
    """The file is no GGUF, or not whole; the message says what is wrong."""


@dataclass(frozen=True)
class TensorEntry:
    name: str
    shape: tuple[int, ...]  # as torch has it: rows first
    type: int  # of ggml
    offset: int  # bytes from the start of the values


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]  # of a list of words its length
    tensors: tuple[TensorEntry, ...]
    start: int  # of the tensors' values in the file
    alignment: int  # bytes, of the start of every tensor's values
    size: int  # bytes of the file


def read(path: Path) -> Header:
    """The header of the file at `path`. Raises OSError, and BadHeader for what is none."""
    if not path.is_file():  # a pipe would be waited for
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise BadHeader("it does not begin with GGUF")
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content).header()
        except (struct.error, IndexError, OverflowError):
            raise BadHeader("it ends within its header") from None


class _Reader:
    """Reads one value after the other. Raises struct.error, IndexError or OverflowError beyond the end of the file."""

    def __init__(self, content: mmap.mmap):
        self.content, self.at = content, 4

    def header(self) -> Header:
        version, tensors, pairs = self.numbers("IQQ")
        if version & 0xFFFF == 0:
            raise BadHeader("it is big-endian, which is not read")
        if version not in _VERSIONS:
            raise BadHeader(f"it is of version {version}, and {' and '.join(map(str, _VERSIONS))} are known")
        # A pair and a tensor each take 13 bytes or more, so that no loop below can be longer than the file.
        if tensors + pairs > len(self.content) // 13:
            raise BadHeader("it ends within its header")
        metadata = {}
        for _ in range(pairs):
            key = self.word()
            metadata[key] = self.value(*self.numbers("I"))
        entries = tuple(self.entry() for _ in range(tensors))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1:
            raise BadHeader("its general.alignment is no number of bytes")
        return Header(metadata, entries, -(-self.at // alignment) * alignment, alignment, len(self.content))

    def entry(self) -> TensorEntry:
        name = self.word()
        (dimensions,) = self.numbers("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise BadHeader(f"its tensor {name[:40]} has {dimensions} dimensions")
        shape = self.numbers(f"{dimensions}Q")
        kind, offset = self.numbers("IQ")
        if not 0 < prod(shape) < 1 << 60:
            raise BadHeader(f"its tensor {name[:40]} has no possible shape")
        return TensorEntry(name, tuple(reversed(shape)), kind, offset)

    def value(self, kind: int) -> Any:
        if letter := _NUMBERS.get(kind):
            return self.numbers(letter)[0]
        if kind == _STRING:
            return self.word()
        if kind != _LIST:
            raise BadHeader(f"it has a value of the unknown type {kind}")
        of, count = self.numbers("IQ")
        if letter := _NUMBERS.get(of):
            size = struct.calcsize(f"<{letter}")
            if count <= _MOST_KEPT:
                return list(self.numbers(f"{count}{letter}"))
            self.skip(count * size)
            return count
        if of != _STRING:
            raise BadHeader(f"it has a list of the unknown type {of}")
        unpack, content, at = struct.Struct("<Q").unpack_from, self.content, self.at
        for _ in range(min(count, len(content) // 8 + 1)):
            at += 8 + unpack(content, at)[0]
        self.at = at
        return count

    def word(self) -> str:
        (length,) = self.numbers("Q")
        start = self.at
        self.skip(length)
        return self.content[start : self.at].decode("utf-8", "replace")

    def numbers(self, letters: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{letters}", self.content, self.at)
        self.at += struct.calcsize(f"<{letters}")
        return values

    def skip(self, count: int) -> None:
        if count > len(self.content) - self.at:
            raise IndexError
        self.at += count
