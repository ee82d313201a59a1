"""Numbers as text: right to their figures, without an exponent, and never longer than a column."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.digits import fixed, number, rounded, signed

UNITS = {"M": 1e6, "G": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.0641, "0.0641"), (3.14159, "3.14"), (226.66, "227"), (12345.6, "12346"),
        (9.996, "10.0"), (0.9999, "1.00"), (999_999, "999999"), (999_999.5, "1.00M"), (1.2345e6, "1.23M"),
        (999.6e6, "1.00G"), (2.5e14, "250T"), (1e15, ">999T"), (-1e15, "<-999T"), (0.00005, "<0.0001"),
        (-0.00005, ">-0.0001"), (-12.34, "-12.3"), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 4))
def test_any_number_is_short_and_right_to_its_figures(value, digits):
    text = number(value, digits)
    assert len(text) <= 10 and "e" not in text
    if text[0] in "<>":
        assert abs(value) < 1e-4 or abs(value) >= 999e12
        return
    unit = UNITS.get(text[-1], 1)
    shown = float(text.rstrip("MGT")) * unit
    assert shown == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=0)


def test_the_zeros_at_the_end_and_signs():
    assert [rounded(v) for v in (12.0, 0.5, 1234.0, 45678.0, 3.7e6)] == ["12", "0.5", "1234", "45678", "3.70M"]
    assert [signed(v) for v in (1.5, -1.5, 0.00001, -0.00001, 0.0)] == ["+1.5", "-1.5", "<0.0001", ">-0.0001", "+0"]
    assert [fixed(v, 1) for v in (12.34, 999_999.0, 1e9, -1e9, math.inf)] == [
        "12.3",
        "999999.0",
        "1.00G",
        "-1.00G",
        "inf",
    ]
