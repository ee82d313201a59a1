"""The range of every number that a user may give: models.yaml, card files, the command line and Python ask here."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from harness.errors import UserError
from harness.text import quoted

# The upper ends are far beyond what anyone trains; what is larger is a typing error, and would overflow further on.
Count = Annotated[int, Meta(ge=1, le=10**9)]
Layers = Annotated[int, Meta(ge=1, le=1000)]
Heads = Annotated[int, Meta(ge=1, le=10**5)]
Width = Annotated[int, Meta(ge=1, le=10**6)]
Vocabulary = Annotated[int, Meta(ge=1, le=10**8)]
Steps = Annotated[int, Meta(ge=1, le=10**9)]
Sequences = Annotated[int, Meta(ge=1, le=2**20)]  # of a step
Cards = Annotated[int, Meta(ge=1, le=1024)]
MOST_TOKENS = 2**24  # Llama 4 takes ten million
Context = Annotated[int, Meta(ge=2, le=MOST_TOKENS)]  # tokens
Prompt = Annotated[int, Meta(ge=64, le=MOST_TOKENS)]  # tokens of a prompt with its answer
MOST_TASKS = 10**6
Tasks = Annotated[int, Meta(ge=1, le=MOST_TASKS)]
Passes = Annotated[int, Meta(ge=1, le=100)]  # of a queue
NoTasks = Annotated[int, Meta(ge=0, le=10**6)]
Side = Annotated[int, Meta(ge=1, le=1000)]  # cells of a grid
Views = Annotated[int, Meta(ge=1, le=10**4)]
Repeats = Annotated[int, Meta(ge=1, le=1000)]
Shown = Annotated[int, Meta(ge=0, le=10**6)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # what torch takes
Hours = Annotated[float, Meta(gt=0, le=10**6)]
Seconds = Annotated[float, Meta(gt=0, le=10**8)]
Rank = Annotated[int, Meta(ge=1, le=2**16)]
Alpha = Annotated[int, Meta(ge=1, le=2**20)]
Dropout = Annotated[float, Meta(ge=0, lt=1)]
LearningRate = Annotated[float, Meta(gt=0, le=10)]
Share = Annotated[float, Meta(gt=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=1000)]
Deviations = Annotated[float, Meta(ge=0, le=100)]  # standard ones
Millions = Annotated[float, Meta(gt=0, le=10**9)]  # of parameters
CardName = Annotated[str, Meta(min_length=1, max_length=64, description="a name of 1 to 64 letters")]
Capability = Annotated[
    str, Meta(pattern=r"\A[0-9]{1,2}\.[0-9]\Z", description="a compute capability in quotes, as in '7.5'")
]
Names = Meta(min_length=1)  # of a list

_ENGLISH = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", tuple: "a list [a, b]"}
_BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))


def within(name: str, value: Any, kind: Any) -> Any:
    """`value` of the option or key `name`, which may be None. Raises UserError where it is outside the range `kind`."""
    if value is None:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise UserError(f"{name} must be {in_english(kind)}, not {quoted(value)}") from None


def in_english(kind: Any) -> str:
    """What a value of the type `kind` is: "a number above 0 and at most 1"."""
    if get_origin(kind) in (Union, UnionType):
        return in_english(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Annotated:
        meta = kind.__metadata__[0]
        if meta.description:
            return meta.description
        limits = [f"{words} {limit:,}" for name, words in _BOUNDS if (limit := getattr(meta, name)) is not None]
        if meta.ge is not None and meta.le is not None:
            limits = [f"from {meta.ge:,} to {meta.le:,}"]
        if meta.min_length:
            limits.append(f"with {meta.min_length} or more in it")
        return f"{in_english(kind.__origin__)} {' and '.join(limits)}"
    return _ENGLISH.get(get_origin(kind) or kind, "a mapping of keys to values")
