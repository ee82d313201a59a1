"""Rows and results of one small model, and the table of a choice: what the tests of choosing have in common."""

import io
from dataclasses import replace

from conftest import cell, result, row
from rich.console import Console

from harness.analysis.projection import DRIFT
from harness.records.cell import Goal
from harness.report import ranking

GOAL = Goal(budget_hours=12, steps=1000, test_tasks=400)
SLOW = 1 + 1.96 * DRIFT


def spec(name):
    return replace(cell().model, name=name)


def row_of(name="tiny", seconds=1.0, context=1024, precision="fp32", weights="random", **more):
    where = cell(model=spec(name), context=context, precision=precision, weights=weights)
    return row((seconds,) * 12, cell=where, **more)


def result_of(name="tiny", right=5, **more):
    return result(right, model=spec(name), **more)


def shown(chosen, goal=GOAL):
    out = io.StringIO()
    ranking.table(chosen, goal, Console(file=out, width=80, highlight=False))
    return out.getvalue()


def flat(text):
    return " ".join(text.split())
