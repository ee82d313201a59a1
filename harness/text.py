"""Text from outside (records, files, models, task sets, the command line), made fit to be shown.

What would act on a terminal, hide other text or break an encoding is written out: an escape character is shown as the
four characters of `\\x1b`.
"""

import codecs
import re
import reprlib
import sys
from functools import cache
from typing import Any

LONGEST_QUOTE = 80  # characters of a value in a message
_LONGEST_WORD = 160  # characters of a path or a name in a message
# Control characters but newline and tab; what is invisible or changes the direction of text (Unicode's category Cf,
# line and paragraph separators); surrogates, which no encoding has.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
# For output in ASCII or Latin-1: what the tables and messages use.
_PLAIN = {"±": "+-", "×": "x", "…": "...", "–": "-", "—": "-", "≥": ">=", "≤": "<=", "·": ".", "─": "-", "━": "-"}


def visible(text: str) -> str:
    """`text` with control, invisible and direction characters and lone surrogates written out, as Python escapes them.

    Newlines and tabs stay.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def quoted(value: Any) -> str:
    """`value` as Python writes it, in at most 80 visible characters, however large or nested it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, LONGEST_QUOTE, LONGEST_QUOTE, LONGEST_QUOTE
    try:
        text = visible(short.repr(value))
    except ValueError:  # an int of thousands of digits
        text = f"a number of {value.bit_length()} bits"
    if len(text) <= LONGEST_QUOTE:
        return text
    half = (LONGEST_QUOTE - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def one_line(text: str) -> str:
    """`text` as one visible line, in which a word of more than 160 characters loses its middle."""
    words = visible(" ".join(text.split())).split(" ")
    half = (_LONGEST_WORD - 3) // 2
    return " ".join(w if len(w) <= _LONGEST_WORD else f"{w[:half]}...{w[-half:]}" for w in words)


@cache
def say_once(text: str) -> None:
    """Prints `text` as a line on standard error, once in a process."""
    print(one_line(text), file=sys.stderr)


def take_any_encoding() -> None:
    """Lets standard output and error write every text in their encoding: what ASCII lacks gets its nearest."""
    codecs.register_error("ttft-bench", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="ttft-bench")


def _nearest(problem: UnicodeError) -> tuple[str, int]:
    assert isinstance(problem, UnicodeEncodeError)
    lost = problem.object[problem.start : problem.end]
    return "".join(_PLAIN.get(c, c.encode("unicode_escape").decode()) for c in lost), problem.end
