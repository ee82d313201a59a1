"""Values that nobody expects, and ways to put them into a document: what the fuzz suite's grammars are made of.

A document is Python's dicts, lists, texts and numbers. `mutated` changes it at one or two places; `as_json` and
`as_yaml` write it; `damaged` spoils the bytes.
"""

import copy
import json
from typing import Any

import yaml
from hypothesis import strategies as st

# Texts that stand for what json.dumps and yaml.dump cannot write. "deep" and "digits" are valid in both languages.
DEEP, DEEP_MAPS, DIGITS = "@@deep@@", "@@deep-maps@@", "@@digits@@"
# Bytes that stand for a folder, and for a link to itself, in a file's place.
FOLDER, LOOP = b"@@folder@@", b"@@loop@@"
_RAW = {DEEP: "[" * 100_000 + "]" * 100_000, DEEP_MAPS: '{"a":' * 20_000 + "1" + "}" * 20_000, DIGITS: "9" * 5000}
_BOMB = "[&a [1,1,1,1,1,1,1,1,1], " + ", ".join(
    f"&{name} [{', '.join(['*' + before] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
) + ", *i]"  # fmt: skip
YAML_RAW = {
    "@@bomb@@": _BOMB,
    "@@itself@@": "&a [*a]",
    "@@python@@": "!!python/object/apply:os.getcwd []",
    "@@no-date@@": "2001-99-99",
    "@@no-int@@": "!!int abc",
    "@@no-float@@": "!!float abc",
    "@@set@@": "!!set {a, b}",
    "@@list-key@@": "{[1, 2]: 3}",
    "@@merge@@": "{<<: 1}",
    "@@unknown-alias@@": "*nobody",
    "@@base60@@": "190:20:30",
}
# What a terminal, a table, a spreadsheet, a path or a number's parser may take for more than a text. None of them
# has the words nan or inf, so that a table with these shows a number that is none.
TEXTS = [
    "", " ", "x", "x" * 5000, "\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\u202eabc", "\u2066abc", "\ud800", "a\x00b",
    "a\nb", "a\rb", "\x7f", "²", "٣", "=1+1", "@x", "[/]", "[link=x]y[/link]", "[red]", "../../x", "~nosuchuser/x",
    "a,b c", "é", "1e400", "0x10", "-1", "0", "ok", "true", "cuda:0", "auto", "none", "attention=sdpa", "1 GiB",
    "'; --", "<script>", "😀", "%s%n", "{0}", "$HOME",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 2**31, 2**63, 2**64, 10**24, 10**400, 0.0, -0.0, 0.5, 1.5, -0.5, 1e30, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
CONTAINERS = [[], {}, [1], [None], [[1]], [[[1]]], {"a": 1}, {"": None}, [0, 0, 0], ["x"], {"a": {"b": [1]}}, [{}]]
SCALARS = st.sampled_from([*TEXTS, *NUMBERS, None, True, False])
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from([None, True, False, *CONTAINERS]),
    st.sampled_from([DEEP, DEEP_MAPS, DIGITS]),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS.map(str), inner, max_size=2)
    ),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, base: Any, values: st.SearchStrategy[Any] = VALUES, most: int = 2) -> Any:
    """`base` with one change or more: a value replaced, left out, doubled, emptied, wrapped; a key added or renamed."""
    document, values = copy.deepcopy(base), values.map(copy.deepcopy)  # what is drawn may be changed in its turn
    for _ in range(draw(st.integers(1, most))):
        if not isinstance(document, dict | list) or not document:
            return draw(values)
        # A random walk down: the fields of the top have as much weight as all that is below them.
        holder, key = document, _key(draw, document)
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 9)) < 7:
            holder = holder[key]
            key = _key(draw, holder)
        _change(draw, holder, key, values)
    return document


def _key(draw: st.DrawFn, holder: Any) -> Any:
    return draw(st.sampled_from(sorted(holder, key=str) if isinstance(holder, dict) else range(len(holder))))


def _change(draw: st.DrawFn, holder: Any, key: Any, values: st.SearchStrategy[Any]) -> None:
    value = holder[key]
    way = draw(
        st.sampled_from(["replace"] * 6 + ["remove", "remove", "add", "rename", "repeat", "empty", "wrap", "near"])
    )
    if way == "remove":
        del holder[key]
    elif way == "add" and isinstance(holder, dict):
        holder[draw(st.sampled_from([*TEXTS, "of_a_later_version"]))] = draw(values)
    elif way == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(TEXTS))] = holder.pop(key)
    elif way == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(value))
    elif way == "empty" and isinstance(value, dict | list):
        holder[key] = type(value)()
    elif way == "wrap":
        holder[key] = draw(st.sampled_from([[value], {"a": value}, str(value)]))
    elif way == "near" and isinstance(value, int | float):
        holder[key] = draw(st.sampled_from([-value, value * 1000, value / 7, value * 1e300 if value else 1, value + 1]))
    else:
        holder[key] = draw(values)


def as_json(document: Any) -> bytes:
    text = json.dumps(document)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def as_yaml(document: Any) -> bytes:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=False, default_flow_style=None, width=10**6)
    for name, raw in {**_RAW, **YAML_RAW}.items():
        for quote in ("'", '"', ""):
            text = text.replace(f"{quote}{name}{quote}", raw)
    return text.encode()


YAML_VALUES = VALUES | st.sampled_from(sorted(YAML_RAW))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut, with other bytes in it, in another encoding, or something else altogether; FOLDER or LOOP too."""
    at = draw(st.integers(0, max(0, len(content) - 1)))
    way = draw(st.sampled_from(["cut", "flip", "insert", "utf-16", "bom", "other", "twice", "nul", "first-key"]))
    match way:
        case "cut":
            return content[:at]
        case "flip":
            return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
        case "insert":
            return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
        case "utf-16":
            return content.decode("utf-8", "replace").encode("utf-16")
        case "bom":
            return b"\xef\xbb\xbf" + content
        case "twice":
            return content + content
        case "nul":
            return content[:at] + b"\x00" * draw(st.integers(1, 50)) + content[at:]
        case "first-key":  # a key given twice, the first time with something odd
            odd = draw(st.sampled_from([b'"key":[1],', b'"model":{},', b'"\\ud800":1,', b'"":NaN,']))
            return content.replace(b"{", b"{" + odd, 1)
    wholes = [
        FOLDER,
        LOOP,
        b"",
        b"null",
        b"[]",
        b"{}",
        b"0",
        b'"x"',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"\x80\x02}q\x00.",
        b"---\n",
    ]
    return draw(st.sampled_from(wholes) | st.binary(max_size=200))


def document(base: Any, write: Any = as_json, values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[bytes]:
    """Bytes of a changed `base`; one of five has its bytes spoiled instead."""
    changed = mutated(base, values).map(write)
    return st.one_of(changed, changed, changed, changed, damaged(write(base)))
