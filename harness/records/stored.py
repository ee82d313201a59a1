"""Converts frozen dataclasses to JSON's types and back, with validation.

A class whose field has another name in files lists it in `STORED`, {field: name in files}, so that old files stay
readable when a field is renamed in the code. Fields that this version does not have are ignored.
"""

from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from harness.errors import first_line

T = TypeVar("T")


def to_stored(value: Any) -> Any:
    """`value` as dicts, lists, strings and numbers; fields of dataclasses under their names in files."""
    if is_dataclass(value) and not isinstance(value, type):
        names = getattr(type(value), "STORED", {})
        return {names.get(f.name, f.name): to_stored(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: to_stored(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_stored(member) for member in value]
    return value


def from_stored(raw: Any, kind: type[T]) -> T:
    """The `kind` that `to_stored` wrote. Raises ValueError, which names the place, where `raw` is not one."""
    try:
        return msgspec.convert(_renamed(raw, kind), kind)
    except (msgspec.ValidationError, RecursionError, TypeError, OverflowError) as problem:
        raise ValueError(first_line(problem)) from None


def _renamed(raw: Any, kind: type) -> Any:
    """`raw` with names in files replaced by names of fields, in every dataclass inside `kind`."""
    older, names, members = _plan(kind)
    if not isinstance(raw, dict):
        return raw
    raw = older(raw) if older else dict(raw)
    for field, stored in names:
        # A field's own name is none in files, where it has another.
        raw.pop(field, None)
        if stored in raw:
            raw[field] = raw.pop(stored)
    for field, inner, several in members:
        value = raw.get(field)
        if several and isinstance(value, list | tuple):
            raw[field] = [_renamed(member, inner) for member in value]
        elif value is not None:
            raw[field] = _renamed(value, inner)
    return raw


@lru_cache(maxsize=64)
def _plan(kind: type) -> tuple[Any, list[tuple[str, str]], list[tuple[str, type, bool]]]:
    """What `_renamed` does in a `kind`: reads an older version's (a function, or None), renames (field, name in files),
    and goes on in (field, dataclass, whether a tuple of them)."""
    names = getattr(kind, "STORED", {})
    hints = get_type_hints(kind)
    members = []
    for field in fields(kind):
        # Optional[X] as X; a tuple of X by its first.
        hint, several = hints[field.name], False
        if get_origin(hint) in (Union, UnionType):
            hint = next((arg for arg in get_args(hint) if is_dataclass(arg)), None)
        elif get_origin(hint) is tuple:
            hint, several = get_args(hint)[0], True
        if isinstance(hint, type) and is_dataclass(hint) and _changes(hint):
            members.append((field.name, hint, several))
    return getattr(kind, "from_older", None), list(names.items()), members


def _changes(kind: type) -> bool:
    """Whether anything in a `kind` has another name in files."""
    older, names, members = _plan(kind)
    return bool(older or names or members)
