"""Grids as text: nothing is lost, and nothing is guessed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arc import encode

GRIDS = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 9), min_size=width, max_size=width).map(tuple), min_size=1, max_size=30
    ).map(tuple)
)
SMALL = ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("name", encode.ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_every_encoding_loses_nothing(name, grid):
    to_text, to_grid = encode.ENCODINGS[name]
    assert to_grid(to_text(grid)) == grid
    assert to_grid(to_text(grid) + "\n") == grid


def test_encodings_by_hand():
    assert {name: to_text(SMALL) for name, (to_text, _) in encode.ENCODINGS.items()} == {
        "rows": "123\n456",
        "spaced": "1 2 3\n4 5 6",
        "numbered": "1 123\n2 456",
        "shaped": "2x3\n123\n456",
    }


@pytest.mark.parametrize("name", encode.ENCODINGS)
@pytest.mark.parametrize(
    "text",
    ["", "\n", "x", "12\n3", "1a\n23", "12\n\n34", "1" * 31, "\n".join("1" * 31), "①②", "-1", "1,2", "1  2", " 1"],
)
def test_text_that_is_no_grid_is_none(name, text):
    assert encode.ENCODINGS[name][1](text) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("numbered", "1 12\n3 34"),
        ("numbered", "0 12"),
        ("numbered", "1 1 2"),
        ("shaped", "2x2\n12"),
        ("shaped", "12\n34"),
    ],
)
def test_headers_must_be_right(name, text):
    assert encode.ENCODINGS[name][1](text) is None


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789 x\n", max_size=40))
def test_decoding_never_raises_and_never_guesses(text):
    for to_text, to_grid in encode.ENCODINGS.values():
        grid = to_grid(text)
        assert grid is None or to_text(grid) == text.strip("\n")
