"""Text from outside is shown as text: nothing in it acts on a terminal, hides other text or breaks an encoding."""

import io
import subprocess
import sys
import time

import pytest
from rich.text import Text

from harness.report import style
from harness.text import one_line, quoted, visible

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x00 a\u202eb \u200b \ud800 \ufeff"


def test_what_would_act_is_written_out():
    assert visible("\x1b[31m") == "\\x1b[31m"
    assert visible("a\u202eb\ud800\x9b") == "a\\u202eb\\ud800\\x9b"
    assert visible(HOSTILE).isprintable()


@pytest.mark.parametrize("text", ["plain", "Größe ± 3", "模型", "a\tb\nc", "😀"])
def test_what_is_harmless_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 5000,
        HOSTILE * 99,
        list(range(10**5)),
        {"a": {"b": {"c": [1] * 999}}},
        10**5000,
        -(10**5000),
        b"\x00" * 999,
    ],
    ids=["long text", "hostile text", "long list", "nested", "huge", "huge and negative", "bytes"],
)
def test_a_quote_has_80_characters_at_most(value):
    assert 0 < len(quoted(value)) <= 80
    assert quoted(value).isprintable()


def test_aliases_of_aliases_are_quoted_at_once():
    value = [1] * 9
    for _ in range(12):
        value = [value] * 9
    start = time.process_time()
    assert len(quoted(value)) <= 80
    assert time.process_time() - start < 5  # a repr of all would take hours


def test_one_line_keeps_both_ends_of_a_long_word():
    assert one_line("a\n b\t c") == "a b c"
    line = one_line(f"see {'x' * 999}.json now")
    assert line.startswith("see xxx") and line.endswith(".json now") and len(line) < 200


@pytest.mark.parametrize("wrap", [str, Text], ids=["text", "Text"])
def test_a_table_shows_hostile_names_as_they_are(wrap):
    out = io.StringIO()
    console = style.PlainConsole(file=out, width=200, force_terminal=True, color_system=None)
    table = style.plain_table("<name|n")
    table.add_row(wrap(f"{HOSTILE}[bold]x[/] [/] :smile:"), "1")
    console.print(table)
    console.print(wrap(HOSTILE))
    printed = out.getvalue()
    assert visible(printed) == printed
    assert "\\x1b[31mred" in printed and "[bold]x[/] [/] :smile:" in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_can_show_every_text(encoding):
    code = (
        "from harness.text import take_any_encoding\n"
        "import sys\n"
        "take_any_encoding()\n"
        "print('1 ± 2 × 3 … ─ 模 \\ud800')\n"
        "print('é', file=sys.stderr)"
    )
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    shown = ended.stdout.decode(encoding)
    expected = {"ascii": "1 +- 2 x 3 ... - \\u6a21 \\ud800\n", "latin-1": "1 ± 2 × 3 ... - \\u6a21 \\ud800\n"}
    assert shown == expected.get(encoding, "1 ± 2 × 3 … ─ 模 \\ud800\n")
