"""Exceptions with messages for the user, and checks of what a user gives."""

import difflib
from collections.abc import Iterable

from harness.text import quoted, visible


class UserError(Exception):
    """Bad input. Its message is one line with the remedy; the command line prints it and exits with code 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows (IPython asks for it) instead of a traceback."""
        return [f"error: {self}"]


def unknown(what: str, given: str, names: Iterable[str]) -> UserError:
    """A `UserError` for the unknown name `given`, which suggests the closest of `names`."""
    names = list(names)
    # Close names if there are any, else the first few of all.
    similar = difflib.get_close_matches(given[:80].lower(), names, n=3, cutoff=0.4)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {', '.join(names[:8])}{more}"
    return UserError(f"unknown {what} {quoted(given)}; {hint}")


class Unsupported(Exception):
    """This model cannot be built or trained so here; the message says why."""


def first_line(problem: BaseException) -> str:
    """The first line of an exception's message, its type where it has none, in 200 visible characters at most.

    A first line that ends in a colon says nothing without the second.
    """
    first, *more = (str(problem).strip() or type(problem).__name__).splitlines()
    return visible(f"{first} {more[0].strip()}" if more and first.endswith(":") else first)[:200]
