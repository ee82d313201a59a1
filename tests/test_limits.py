"""One table of ranges: a value that one door refuses is refused at every other."""

import math
import typing

import pytest

from harness import limits
from harness.errors import UserError

KINDS = {name: kind for name, kind in vars(limits).items() if typing.get_origin(kind) is typing.Annotated}
NUMBERS = {name: kind for name, kind in KINDS.items() if kind.__origin__ in (int, float)}


@pytest.mark.parametrize("name", NUMBERS)
def test_no_range_takes_what_is_no_number_of_this_world(name):
    for value in (math.nan, math.inf, -math.inf, 10**400, -1, "1", True, [], 1e30):
        with pytest.raises(UserError, match=r"^--x must be a .* from .* to |^--x must be a number"):
            limits.within("--x", value, NUMBERS[name])


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_a_range_are_what_it_says(name):
    kind = NUMBERS[name]
    meta = kind.__metadata__[0]
    if meta.le is not None:
        assert limits.within("--x", kind.__origin__(meta.le), kind) == meta.le
    if meta.ge is not None:
        assert limits.within("--x", kind.__origin__(meta.ge), kind) == meta.ge


def test_nothing_given_is_nothing():
    assert limits.within("--x", None, limits.Steps) is None


def test_a_message_says_the_range_and_quotes_little():
    with pytest.raises(UserError) as error:
        limits.within("--steps", 10**300, limits.Steps)
    assert str(error.value).startswith("--steps must be a whole number from 1 to 1,000,000,000, not 1000")
    assert len(str(error.value)) < 150
