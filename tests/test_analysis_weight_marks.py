"""Rows of one name and several weights are told apart, in every table that names them; others are named as ever."""

import io
from pathlib import Path

import pytest
from helpers.records import cell, result, row
from rich.console import Console

from harness.analysis.weight_marks import weight_marks
from harness.catalog.weights import short
from harness.records.cell import Goal, ModelSpec
from harness.report import terminal
from harness.report.page.judged import Content, Judged
from harness.report.page.render import page

OLD, NEW = "files:0f3a99c1@~/model", "files:77aa77aa@~/model"
GOAL = Goal(12, 1000, 400)


def rows_of(*weights, **changes):
    return [row((1.0 + i,) * 12, key=own, cell=cell(weights=own, **changes)) for i, own in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "letters"),
    [
        (OLD, "0f3a99c1"),
        ("gguf:Q4_1:77aa77aa@~/model.gguf", "77aa77aa"),
        ("bundled:arc-tiny@12345678", "12345678"),
        (f"~/hub/models--a--b/snapshots/{'0123456789' * 4}", "01234567"),
        ("random", "random"),
        ("~/models/my-own-model/", "wn-model"),
        ("/model", "model"),
    ],
)
def test_weights_in_eight_letters(weights, letters):
    assert short(weights) == letters


def test_only_models_with_rows_or_arms_of_one_name_have_marks():
    other = row(cell=cell(model=ModelSpec("other", {}, 512)))
    assert weight_marks([*rows_of(OLD, NEW), other]) == {("tiny", OLD): "/0f3a99c1", ("tiny", NEW): "/77aa77aa"}
    assert not weight_marks([*rows_of(OLD), *rows_of(NEW, context=512)])
    assert set(weight_marks([], [result(3, weights=OLD), result(3, weights=NEW)])) == {("tiny", OLD), ("tiny", NEW)}


def test_every_table_and_the_page_tell_them_apart_in_80_columns():
    rows, results = rows_of(OLD, NEW), [result(3 + i, weights=own) for i, own in enumerate((OLD, NEW))]
    out = io.StringIO()
    terminal.show(rows, results, Goal(100, 1000, 400), Console(file=out, width=80))
    text = out.getvalue()
    # Twice in the tables of cells, once in the ranking; in words above the arms and in the pick.
    assert [text.count(f" /{own} ") for own in ("0f3a99c1", "77aa77aa")] == [4, 3]  # one is in the legend
    assert all(
        f"tiny fp32/{own}, projected over ARC's lengths" in " ".join(text.split()) for own in ("0f3a99c1", "77aa77aa")
    )
    words = " ".join(text.split())
    assert "tiny fp32/0f3a99c1 on 10 tasks" in words and "Pick: tiny fp32/77aa77aa at 1024 tokens" in words
    assert max(map(len, text.splitlines())) <= 80
    html = page(Judged.of(Content(folder=Path("x"), rows=rows, results=results), Goal(100, 1000, 400)), [])
    assert "<td>fp32/0f3a99c1<td>" in html and "tiny fp32/77aa77aa, 10 tasks" in html
