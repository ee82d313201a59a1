"""What a trainer prints, taken apart: plain text, the last training in it, and the dicts that it is made of."""

import re
from dataclasses import dataclass

from harness.logs.logged import positive

NUMBER = r"([0-9][0-9,]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_MOST = 1 << 26  # characters that are read
_BEGINS = re.compile(r"Running training \*|Total optimization steps\s*=|Num Epochs\s*=")


def key(name: str) -> str:
    """The value of `name` as a dict's text, a table of metrics or YAML has it: 'x': '1', x = 1, x: 1. What ends with
    the text is none: it may have been cut off there."""
    return rf"""(?<![\w/]){name}['"]?\s*[:=]\s*['"]?{NUMBER}(?![\w:]|\.[0-9]|\.?\Z)"""


_SECONDS = re.compile(
    "|".join(
        (
            # As log_metrics writes it: 1:02:03.45, and from a day on "1 day, 2:03:04.5".
            r"(?<!\w)train_runtime\s*=\s*((?:[0-9]{1,4} days?, )?[0-9]{1,9}(?::[0-9.]{1,9}){1,2})[ \t]*$",
            key("train_runtime"),
            rf"^[ \t]*{NUMBER} seconds used for training",
        )
    ),
    re.MULTILINE,
)


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

    def ended(match: re.Match[str]) -> str:
        entry = match[0]
        so_far = "train_runtime" in entry and re.search(r"(?<!\w)loss['\"]?\s*:", entry)
        return entry.replace("train_runtime", "seconds_so_far") if so_far else entry

    return re.sub(r"\{[^{}\n]{0,4000}\}", ended, text)


def last_training(text: str) -> Training:
    """Of `text` that `plain` made. What an earlier training printed is none of the last one's."""
    ends = [(match.start(), match.end(), _seconds(match)) for match in _SECONDS.finditer(text)]
    ends = [end for end in ends if end[2]]
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


def entries(text: str) -> list[str]:
    """The dicts that a trainer prints, one per line."""
    return re.findall(r"\{[^{}\n]{0,4000}\}", text)


def value_of(entry: str, name: str) -> float | None:
    found = re.search(key(name), entry)
    return positive(found[1]) if found else None


def _same(one: float | None, other: float | None) -> bool:
    return abs((one or 0) - (other or 0)) <= max(6e-4 * (other or 0), 0.006)


def _seconds(match: re.Match[str]) -> float | None:
    clock, plain_number, used = match.groups()
    if not clock:
        return positive(plain_number or used)
    days, _, hours = clock.rpartition(", ")
    total = 0.0
    for part in hours.split(":"):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", part):
            return None
        total = 60 * total + float(part)
    return positive(total + 86400 * int(days.split()[0] if days else 0))
