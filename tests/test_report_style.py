"""Tables that are narrower than their contents."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from harness.report.style import plain_table


def _lines(width, *names):
    out, table = io.StringIO(), plain_table("<model|value")
    for name in names:
        table.add_row(name, "1234567890")
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()[2:]]


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", Text("qwen2.5-0.5b")])
def test_a_models_name_breaks_behind_a_hyphen_and_only_where_it_must(name):
    assert _lines(24, name) == ["qwen2.5-0.5b 1234567890"]
    assert _lines(22, name) == ["qwen2.5-    1234567890", "0.5b"]


def test_a_part_that_is_too_long_breaks_anywhere_and_nothing_is_lost():
    shown = _lines(20, "a-longest_of_names-b", "", "-")
    assert "".join(line.split()[0] for line in shown[:4] if line.split()[0] != "1234567890") == "a-longest_of_names-b"


def test_a_long_name_of_a_card_takes_no_room_from_the_numbers():
    out, table = io.StringIO(), plain_table("<model|<card|tokens|h (95 %)")
    table.add_row(
        Text("smollm2-135m"), "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation", "1024", "0.024 (0.014-0.043)"
    )
    Console(file=out, width=60).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[2].split()[-3:] == ["1024", "0.024", "(0.014-0.043)"] and lines[2].startswith("smollm2-")
    assert "Blackwell" in out.getvalue() and "Workstation" in out.getvalue() and max(map(len, lines)) <= 60
