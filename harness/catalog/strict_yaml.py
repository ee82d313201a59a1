"""Strict reading of YAML files into msgspec structs: any fault is one line with file, line and key."""

import re
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from harness.errors import UserError
from harness.files import read_bytes
from harness.limits import in_english
from harness.text import LONGEST_QUOTE, quoted

Keys = tuple[str | int, ...]
T = TypeVar("T", bound=msgspec.Struct)
_MOST_BYTES = 1 << 21
_MOST_VALUES, _DEEPEST = 20_000, 32


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A mapping whose keys are the fields. An int serves as a float; a bool is no int."""


class Document:
    """A YAML file as plain values, `raw`, with the line of each. Raises UserError for a key that is given twice."""

    def __init__(self, path: Path, root: yaml.Node):
        self.path = path
        self.lines: dict[Keys, int] = {}
        self._values = 0
        self._scalars = yaml.constructor.SafeConstructor()
        self.raw = self._plain(root, ())

    def error(self, keys: Keys, why: str) -> UserError:
        """A UserError about the value at `keys`, with its line; for a missing value, the line of its mapping."""
        line = next(self.lines[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.lines)
        return UserError(f"{self.path}, line {line}: {_dotted(keys)} {why}")

    def convert(self, kind: type[T], *keys: str, under: dict[str, Any] | None = None) -> T:
        """The mapping at `keys` as a `kind`; what it leaves out is taken from `under`.

        Raises UserError for a key that is missing or unknown, and for a value of another type or out of range.
        """
        raw = self.raw
        for key in keys:
            raw = raw[key]
        if under is not None:
            raw = {**under, **raw}
        try:
            return msgspec.convert(raw, kind)
        except msgspec.ValidationError as problem:
            raise self._in_english(str(problem), kind, raw, keys) from None
        except UnicodeError:  # half of a character, written as an escape
            raise self.error(keys, "holds a text that is none in UTF-8") from None

    def _plain(self, node: yaml.Node, keys: Keys) -> Any:
        self.lines[keys] = node.start_mark.line + 1
        # An alias stands for the whole of what it names, so a few lines of aliases of aliases are billions of values.
        self._values += 1
        if self._values > _MOST_VALUES or len(keys) > _DEEPEST:
            raise self.error(keys, f"is one of over {_MOST_VALUES:,} values, or nested deeper than {_DEEPEST} levels")
        # Lists and mappings of nodes, whose line numbers yaml.safe_load would lose.
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*keys, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise self.error(keys, "has a key that is a list or a mapping; keys are words")
                name = str(key.value)
                if name in values:
                    self.lines[*keys, name] = key.start_mark.line + 1
                    raise self.error((*keys, name), "is given twice")
                values[name] = self._plain(value, (*keys, name))
            return values
        try:
            # Scalars by YAML's own rules: 5e-5, true, null.
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError):
            raise self.error(keys, f"must not be {quoted(node.value)}") from None
        if isinstance(value, float) and not isfinite(value):
            raise self.error(keys, f"must not be {quoted(value)}")
        return value

    def _in_english(self, message: str, kind: Any, raw: Any, keys: Keys) -> UserError:
        """msgspec's `message` about `raw`, the value at `keys` that should be a `kind`, with line and key."""
        # msgspec's path, as in `$.models[0].context`: walked down to the type that was expected there.
        message, _, trail = message.partition(" - at `$")
        for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", trail):
            step = name or int(index)
            kind, raw, keys = _inner(kind, step), raw[step], (*keys, step)

        if field := re.fullmatch(r"Object missing required field `(.+)`", message, re.DOTALL):
            return self.error((*keys, field[1]), "is missing")
        if field := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
            # A misspelt key usually stands for one that is missing.
            fields = msgspec.structs.fields(_bare(kind))
            missing = [f.name for f in fields if f.required and f.name not in raw]
            hint = f"missing: {', '.join(missing)}" if missing else f"known: {', '.join(f.name for f in fields)}"
            return self.error((*keys, field[1]), f"is not a known key; {hint}")
        if message.startswith(("Expected", "Invalid")):
            return self.error(keys, f"must be {in_english(kind)}, not {quoted(raw)}")
        return self.error(keys, message)  # of a struct's own __post_init__


def parse_file(path: Path, option: str = "--models-file") -> Document:
    """The file `path`. Raises UserError where it cannot be read or is no YAML mapping; `option` is what named it."""
    try:
        root = yaml.compose(read_bytes(path, _MOST_BYTES).decode("utf-8"), Loader=yaml.SafeLoader)
        if root is not None:
            return Document(path, root)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name another file with {option}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not YAML: {getattr(problem, 'problem', None) or problem}") from None
    raise UserError(f"{path}: is empty")


def _dotted(keys: Keys) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
    return text if 0 < len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..." if text else "the file"


def _bare(kind: Any) -> Any:
    """The type without bounds; of a union its first, for the others are older ways of writing, or nothing at all."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = get_args(kind)[0]
    return kind


def _inner(kind: Any, step: str | int) -> Any:
    kind = _bare(kind)
    if isinstance(step, int):
        return get_args(kind)[0]
    return next(field.type for field in msgspec.structs.fields(kind) if field.name == step)
