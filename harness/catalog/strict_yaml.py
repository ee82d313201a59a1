"""YAML read strictly: every value remembers its line, a key used twice or unknown is one clear line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError


class Block:
    """A YAML mapping whose keys are taken out one by one; what is left at the end was unknown."""

    def __init__(self, path: Path, node: yaml.Node, trail: str = ""):
        self.path, self.node, self.trail = path, node, trail
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, trail or "the file", "must be a mapping of keys to values")
        self.items: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in self.items:
                raise self.error(key, self.named(name), "is given twice")
            self.items[name] = value
        self.known: list[str] = []

    def named(self, key: str) -> str:
        return f"{self.trail}.{key}" if self.trail else key

    def error(self, node: yaml.Node, key: str, why: str) -> UserError:
        return UserError(f"{self.path}, line {node.start_mark.line + 1}: {key} {why}")

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        """The value of `key`, of type `kind`. Raises UserError if it is missing without a default, or of another type.

        An int serves as a float; a bool is not an int.
        """
        self.known.append(key)
        if key not in self.items:
            if default is ...:
                raise self.error(self.node, self.named(key), "is missing")
            return default
        node = self.items.pop(key)
        value = _construct(node)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(node, self.named(key), f"must be {_ENGLISH[kind]}, not {value!r}")
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < float("inf"):
            raise self.error(node, self.named(key), f"must not be {value!r}")
        return value

    def take_list(self, key: str, kind: type, default: Any = ...) -> list[Any]:
        node = self.items.get(key, self.node)
        values = self.take(key, list, default)
        for value in values:
            if type(value) is not kind:
                raise self.error(node, self.named(key), f"must list {_ENGLISH[kind]} each, not {value!r}")
        return values

    def block(self, key: str) -> "Block":
        self.known.append(key)
        if key not in self.items:
            raise self.error(self.node, self.named(key), "is missing")
        return Block(self.path, self.items.pop(key), self.named(key))

    def done(self) -> None:
        """Raises UserError if a key was not taken."""
        for key, node in self.items.items():
            raise self.error(node, self.named(key), f"is not a known key; known: {', '.join(self.known)}")


_ENGLISH = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list [a, b]"}


def is_bool(node: yaml.Node | None) -> bool:
    return getattr(node, "tag", None) == "tag:yaml.org,2002:bool"


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def read(path: Path, option: str = "--models-file") -> Block:
    """The file's top level. Raises UserError where it cannot be read or is no YAML; `option` is what named it."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name another file with {option}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not YAML: {getattr(problem, 'problem', None) or problem}") from None
    if node is None:
        raise UserError(f"{path}: is empty; it needs defaults, recipe and models")
    return Block(path, node)


def one_of(block: Block, key: str, value: str, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise UserError(f"{block.path}: {block.named(key)} must be one of {', '.join(allowed)}, not {value!r}")
    return value
