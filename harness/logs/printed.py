"""What a trainer prints, taken apart: plain text, the last training in it, and the dicts that it is made of.

A log may be large, and from anywhere. What is sought begins with its letters, which `re` finds many times as fast as
what begins by looking back, and no search may go over the same text again and again.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from harness.logs.logged import positive

NUMBER = r"([0-9][0-9,]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_MOST = 1 << 26  # characters that are read
_BEGINS = re.compile(r"Running training \*|Total optimization steps\s*=|Num Epochs\s*=")


_LONGEST = 4000  # characters of a dict
_RUNTIME = "train_runtime"


def after(letters: str, rest: str, unlike: str = r"\w") -> str:
    """A pattern of `letters`, which none of the characters `unlike` precedes, and the pattern `rest`."""
    return rf"{letters}(?<![{unlike}]{letters}){rest}"


_VALUE = rf"""['"]?\s*[:=]\s*['"]?{NUMBER}(?![\w:]|\.[0-9]|\.?\Z)"""


def key(name: str) -> str:
    """The value of `name` as a dict's text, a table of metrics or YAML has it: 'x': '1', x = 1, x: 1. What ends with
    the text is none: it may have been cut off there."""
    return after(name, _VALUE, r"\w/")


# As log_metrics writes it: 1:02:03.45, and from a day on "1 day, 2:03:04.5".
_CLOCK = r"\s*=\s*((?:[0-9]{1,4} days?, )?[0-9]{1,9}(?::[0-9.]{1,9}){1,2})[ \t]*$"
_SECONDS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        after(_RUNTIME, rf"(?:{_CLOCK}|(?<!/{_RUNTIME}){_VALUE})"),
        rf"^[ \t]*{NUMBER} seconds used for training",
    )
)
_EVALUATION = re.compile(after("eval_", rf"((?:\w+_)?)runtime{_VALUE}", r"\w/"))
_LOSS = re.compile(after("loss", r"""['"]?\s*:"""))


@dataclass(frozen=True)
class Training:
    """The last training that is printed. `text` is all since the one before, `during` the part of it between its own
    beginning and its end, and `trainings` how many ended in the whole."""

    text: str
    during: str
    seconds: float | None
    trainings: int


def plain(raw: str) -> str:
    """The end of `raw`, with one kind of line ends, and without colours and the seconds that a trainer which counts
    tokens prints with every loss: they are of the training so far."""
    text = re.sub(r"\x1b\[[0-9;]{0,20}[A-Za-z]", "", raw[-_MOST:].replace("\r\n", "\n").replace("\r", "\n"))
    parts, done, at = [], 0, text.find(_RUNTIME)
    while at >= 0:
        begin, end = _dict_around(text, at) or (at, at + 1)
        if _LOSS.search(text, begin, end):
            parts += [text[done:begin], text[begin:end].replace(_RUNTIME, "seconds_so_far")]
            done = end
        at = text.find(_RUNTIME, end)
    return "".join([*parts, text[done:]])


def last_training(text: str) -> Training:
    """Of `text` that `plain` made. What an earlier training printed is none of the last one's."""
    ends = [(m.start(), m.end(), _seconds(m)) for pattern in _SECONDS for m in pattern.finditer(text)]
    ends = sorted(end for end in ends if end[2])
    if not ends:
        return Training(text, text, None, 0)
    # A run's seconds are printed several times, rounded: another number is another run's.
    changes = [i for i in range(1, len(ends)) if not _same(ends[i - 1][2], ends[i][2])]
    first = changes[-1] if changes else 0
    end, begin = ends[first][0], 0
    if first:
        after_line = text.find("\n", ends[first - 1][1]) + 1
        begin = min(after_line or end, end)
    banner = _BEGINS.search(text, begin, end)
    if banner:
        return Training(
            text[banner.start() if first else 0 :], text[banner.start() : end], ends[-1][2], len(changes) + 1
        )
    # Without a banner an evaluation before it may be the one of the training before.
    return Training(text[begin:], "" if first else text[:end], ends[-1][2], len(changes) + 1)


def dicts_with(text: str, name: str) -> Iterator[str]:
    """The dicts that a trainer prints, one per line, which have a number called `name`; the last one first."""
    last = -1
    for at in reversed(array("q", (match.start() for match in re.finditer(key(name), text)))):
        begin, end = _dict_around(text, at) or (last, last)
        if begin != last:
            last = begin
            yield text[begin:end]


def evaluations(text: str) -> list[float]:
    """Seconds of each evaluation, by dicts that tell the epoch too."""
    seconds: list[float] = []
    names: set[str] = set()
    begin, end, counts = 0, -1, False
    for match in _EVALUATION.finditer(text):
        if match.start() >= end:
            begin, end = _dict_around(text, match.start()) or (match.start(), match.start() + 1)
            counts, names = bool(value_of(text[begin:end], "epoch")), set()
        if counts and match[1] not in names and (taken := positive(match[2])):
            seconds.append(taken)
        names.add(match[1])
    return seconds


def _dict_around(text: str, at: int) -> tuple[int, int] | None:
    """Where the dict begins and ends in which the place `at` is; None where it is in none."""
    begin = text.rfind("{", max(0, at - _LONGEST), at)
    end = text.find("}", at, begin + _LONGEST + 2) + 1
    if begin < 0 or not end or text.find("}", begin, at) >= 0 or text.find("{", at, end) >= 0:
        return None
    return None if text.find("\n", begin, end) >= 0 else (begin, end)


def value_of(entry: str, name: str) -> float | None:
    found = re.search(key(name), entry)
    return positive(found[1]) if found else None


def _same(one: float | None, other: float | None) -> bool:
    return abs((one or 0) - (other or 0)) <= max(6e-4 * (other or 0), 0.006)


def _seconds(match: re.Match[str]) -> float | None:
    clock, number = match[1] if match.re.groups == 2 else None, match[match.re.groups]
    if not clock:
        return positive(number)
    days, _, hours = clock.rpartition(", ")
    total = 0.0
    for part in hours.split(":"):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", part):
            return None
        total = 60 * total + float(part)
    return positive(total + 86400 * int(days.split()[0] if days else 0))
