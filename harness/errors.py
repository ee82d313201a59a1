"""Exceptions with messages for the user, and checks of what a user gives."""

import difflib
from collections.abc import Iterable
from math import isfinite


class UserError(Exception):
    """Bad input. Its message is one line with the remedy; the command line prints it and exits with code 2."""


def unknown(what: str, given: str, names: Iterable[str]) -> UserError:
    """A `UserError` for the unknown name `given`, which suggests the closest of `names`."""
    names = list(names)
    # Close names if there are any, else the first few of all.
    similar = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.4)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {', '.join(names[:8])}{more}"
    return UserError(f"unknown {what} {given!r}; {hint}")


class Unsupported(Exception):
    """This model cannot be built or trained so here; the message says why."""


def first_line(problem: BaseException) -> str:
    """The first line of an exception's message, its type where it has none; 200 characters at most.

    A first line that ends in a colon says nothing without the second.
    """
    first, *more = (str(problem).strip() or type(problem).__name__).splitlines()
    return (f"{first} {more[0].strip()}" if more and first.endswith(":") else first)[:200]


def positive(option: str, value: float | None) -> float | None:
    """`value`, which may be None. Raises UserError where it is not a finite number above 0."""
    if value is not None and not (isfinite(value) and value > 0):
        raise UserError(f"{option} must be above 0, not {value:g}")
    return value
