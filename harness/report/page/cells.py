"""Every cell as a row of the page's table, and what the page judges them by again when a slider moves."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from harness.analysis.candidates import Candidate, interval
from harness.analysis.projection import project, step_seconds
from harness.analysis.run_hours import PREDICTED, RunHours
from harness.analysis.verdict import verdict
from harness.analysis.weight_marks import Marks, mark_behind, weight_marks
from harness.arc.lengths import PUBLISHED
from harness.digits import number
from harness.records.measurement import Measurement
from harness.report.format import gib, hours
from harness.report.page.evidence import MEASURED, PROJECTED
from harness.report.page.evidence import PREDICTED as BY_PREDICTION
from harness.report.page.judged import Judged

LONGEST = 400  # letters of a text in the table
# (heading, explanation, evidence of all its numbers, whether it is a number)
COLUMNS = (
    ("model", "name of the model", "", False),
    ("precision", "with the recipe's marks; * where the device emulates the dtype", "", False),
    ("context", "tokens of the longest sequence", "", True),
    ("steps/min", "optimiser steps per minute at the full context", MEASURED.mark, True),
    ("train h", "load, warm-up and all steps at the full context, with a 95 % interval", PROJECTED.mark, True),
    ("whole run h", "load, training over ARC's lengths and all answers, with a 95 % interval", "", True),
    ("ARC fits", "share of ARC's sequences that fit the context", "", True),
    ("peak GiB", "most memory of the whole process", MEASURED.mark, True),
    ("solved %", "tasks solved after the fine-tune, with a 95 % interval", MEASURED.mark, True),
    ("verdict", "of the whole run against the budget", "", False),
    ("reason", "why there is no number", "", False),
)


def table(judged: Judged) -> list[tuple[str, ...]]:
    """One tuple of texts per row of the record, in the order of COLUMNS; the run's mark of evidence is in its text."""
    by_key = {c.row.key: c for c in judged.listed if c.at_own_context}
    marks = weight_marks(judged.content.rows)
    texts = [_texts(row, judged, by_key.get(row.key), marks) for row in judged.content.rows]
    return [tuple(text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in row) for row in texts]


def _texts(row: Measurement, judged: Judged, candidate: Candidate | None, marks: Marks) -> tuple[str, ...]:
    cell, run = row.cell, judged.runs.get(row.key)
    speed = train = accuracy = "-"
    if row.ok:
        span = project(row, judged.goal.steps)
        speed, train = number(60 / span.step_s), hours(span.hours_low, span.hours_mid, span.hours_high)
    if candidate and (result := candidate.result):
        low, high = interval(result)
        accuracy = f"{100 * result.mean('attempts'):.1f} ({100 * low:.0f}-{100 * high:.0f})"
    return (
        cell.model.name,
        cell.label + ("*" if row.rate and not row.rate.native else "") + mark_behind(row, marks),
        str(cell.context),
        speed,
        train,
        f"{hours(run.low, run.mid, run.high)} {mark_of(run)}" if run else "-",
        f"{100 * PUBLISHED.coverage(cell.context):.0f} %",
        gib(row.peak_bytes),
        accuracy,
        judged.words[row.key],
        f"{row.status.replace('_', ' ')}: {row.reason}" if not row.ok else "",
    )


def mark_of(run: RunHours) -> str:
    """What the hours of a run are at best: projected from measured steps, or with predicted answers in them."""
    return (BY_PREDICTION if run.evidence == PREDICTED else PROJECTED).mark


def for_script(judged: Judged) -> dict[str, Any]:
    """What page.js needs to judge every cell and name the best candidate by another budget and other steps."""
    goal, rows = judged.goal, judged.content.rows
    index = {row.key: i for i, row in enumerate(rows)}
    by_key = {c.row.key: c for c in judged.listed if c.at_own_context}
    cells = [_cell(row, judged, by_key.get(row.key)) for row in rows]
    return {
        "budget": goal.budget_hours,
        "goalSteps": goal.steps,
        "cells": cells,
        "candidates": [_candidate(c, index, judged) for c in judged.listed],
    }


def _cell(row: Measurement, judged: Judged, candidate: Candidate | None) -> dict[str, Any]:
    """`word` where no budget changes the verdict; the runs that the verdict or the hours may be of."""
    run = judged.runs.get(row.key)
    made: dict[str, Any] = {}
    # Whatever the hours: what is not by hours is the same for none.
    without = verdict(row, None, judged.goal.budget_hours)
    if run is None or not row.ok or without != row.status or not all(map(math.isfinite, row.losses)):
        made["word"] = judged.words[row.key]
    if run:
        made["runs"] = _runs(run, candidate, judged)
    if row.ok:
        step = step_seconds(row)
        # Of the steps at full contexts: fixed hours, seconds per step, relative half width.
        span = project(row, 1)
        half = (span.hours_high - span.hours_mid) * 3600 / step if step and fmean(row.micro_s) else 0.0
        made["train"] = [span.fixed_h, step / 3600, half]
    return made


def _runs(run: RunHours, candidate: Candidate | None, judged: Judged) -> list[dict[str, Any]]:
    scopes = candidate.scopes if candidate and candidate.scopes else ((0.0, run),)
    return [_run(own, accuracy, bool(candidate and candidate.result)) for accuracy, own in scopes]


def _run(run: RunHours, accuracy: float, measured: bool) -> dict[str, Any]:
    """A run in numbers: with steps of its own where a fine-tune was measured, else with the goal's."""
    made: dict[str, Any] = {
        "load": run.load,
        "step": [run.step.low, run.step.mid, run.step.high],
        "share": run.share,
        "accuracy": accuracy,
        "scope": run.run.scope,
        "predicted": run.evidence == PREDICTED,
        "mark": mark_of(run),
    }
    if measured:
        made["steps"] = run.run.steps
    if run.answers:
        made["answers"] = [run.answers.low, run.answers.mid, run.answers.high]
    return made


def _candidate(c: Candidate, index: dict[str, int], judged: Judged) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": c.name,
        "context": c.context,
        "subject": "\n".join(c.subject),
        "params": c.row.params or 0,
        "half": PUBLISHED.coverage(c.context) >= 0.5,
    }
    if c.result:
        made["accuracy"] = c.result.mean("attempts")
    if c.at_own_context:
        made["cell"] = index[c.row.key]
    if not c.at_own_context or c.row.key not in judged.runs:
        made["runs"] = _runs(c.run, c, judged)
    return made


def counts(words: Sequence[str]) -> str:
    """The verdicts of all cells, counted: "4 fits, 2 too slow"."""
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
