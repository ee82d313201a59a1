"""Rows and results of one small model, and the table of a choice: what the tests of ranking share.

A row is 16 micro-steps of a second per step at 1024 tokens, loaded in no time, with a second of warm-up. Its seconds
are in proportion to tokens, and ARC's lengths to 1024 are spread evenly from 350: 687 in the mean, 10.734 s per step.
1000 steps are 10734 s, 2.982 h; at the slow end 1.96 x 4.5 % more, and 10 % for a curve of one context: 3.543 h. Where
no length fits, they are 16000 s, 4.444 h, and 4.836 at the slow end.
"""

import io
from dataclasses import replace

from helpers.records import cell, result, row
from rich.console import Console

from harness.analysis.drift import CPU, DRIFT
from harness.records.cell import Goal
from harness.records.measurement import FlopCount
from harness.report import ranking

GOAL = Goal(budget_hours=12, steps=1000, test_tasks=400)
STEP_S, SLOW = 16 * 687 / 1024, 1 + 1.96 * DRIFT[CPU] + 0.1
FULL_STEP_S, FULL_SLOW = 16.0, 1 + 1.96 * DRIFT[CPU]
LINEAR = FlopCount(1e9, 0, 1e9, 0)


def spec(name):
    return replace(cell().model, name=name)


def row_of(name="tiny", seconds=1.0, context=1024, precision="fp32", weights="random", **more):
    where = cell(model=spec(name), context=context, precision=precision, weights=weights)
    return row((seconds,) * 12, **{"cell": where, "work": LINEAR} | more)


def result_of(name="tiny", right=5, **more):
    return result(right, model=spec(name), **more)


def shown(chosen, goal=GOAL):
    out = io.StringIO()
    ranking.ranking_table(chosen, goal, Console(file=out, width=80, highlight=False))
    return out.getvalue()


def flat(text):
    return " ".join(text.split())
