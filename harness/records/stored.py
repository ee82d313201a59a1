"""Converts frozen dataclasses to JSON's types and back, with validation.

A class whose field has another name in files lists it in `STORED`, {field: name in files}, so that old files stay
readable when a field is renamed in the code. Fields that this version does not have are ignored.
"""

from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

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
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None


def _renamed(raw: Any, kind: Any) -> Any:
    """`raw` with names in files replaced by names of fields, in every dataclass inside `kind`."""
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(raw, dict):
            return raw
        # A class may read what older versions wrote; then its fields are converted in turn.
        older = getattr(kind, "from_older", lambda same: same)
        names, hints = getattr(kind, "STORED", {}), _hints(kind)
        raw = older({stored: raw[stored] for f in hints if (stored := names.get(f, f)) in raw})
        return {f: _renamed(raw[stored], hint) for f, hint in hints.items() if (stored := names.get(f, f)) in raw}
    # Containers: Optional[X] as X, and tuples of one type.
    if get_origin(kind) in (Union, UnionType):
        return _renamed(raw, next((arg for arg in get_args(kind) if is_dataclass(arg)), None))
    if get_origin(kind) is tuple and isinstance(raw, list | tuple):
        return [_renamed(member, get_args(kind)[0]) for member in raw]
    return raw


@lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}
