"""Fills the page's template, and writes it: one file, in which nothing is loaded from elsewhere.

python -m harness report --html report.html
"""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis.candidates import best_arm, interval
from harness.arc.lengths import PUBLISHED
from harness.digits import rounded
from harness.files import home_relative, write_output
from harness.report import speed
from harness.report.format import GIB, hours
from harness.report.page import arms, cells, evidence, figures, tasks
from harness.report.page.canvas import Picture
from harness.report.page.environment import TEMPLATES, environment, style
from harness.report.page.judged import Judged
from harness.text import visible


def write_page(judged: Judged, path: Path, pictures: Sequence[Picture] | None = None) -> None:
    """Writes the record's page, with `pictures` or all that there are, to `path`, whole or not at all.

    Raises UserError where it cannot be written, or jinja2 or matplotlib is missing.
    """
    write_output(path, page(judged, figures.pictures(judged) if pictures is None else pictures))


def page(judged: Judged, pictures: Sequence[Picture]) -> str:
    """The page as HTML. Raises UserError where jinja2 or matplotlib is missing."""
    templates = environment()
    from markupsafe import Markup

    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown_tasks = tasks.shown(judged)
    drawn = {picture.name: Markup(picture.inline) for picture in pictures}
    return templates.get_template("page.html").render(
        style=style(tasks.STYLE if shown_tasks else ""),
        script=Markup(script),
        digest=digest,
        data=Markup(_json_in_html(cells.for_script(judged))),
        pictures=pictures,
        drawn=drawn,
        headline=headline(judged),
        tiles=tiles(judged),
        judged=judged,
        goal=judged.goal,
        columns=cells.COLUMNS,
        rows=cells.table(judged),
        notes=speed.notes(judged.content.rows, judged.runs, judged.goal) if judged.content.rows else ([], []),
        failures=any(not row.ok for row in judged.content.rows),
        counts=cells.counts(list(judged.words.values())),
        arms=arms.tables(judged),
        arm_headings=arms.HEADINGS,
        compared_headings=arms.COMPARED,
        tasks=shown_tasks,
        svg=Markup,
        legend=evidence.LEGEND,
        origin=origin(judged),
    )


def _word(path: str) -> str:
    """`path` as a shell takes it, its home still a "~"."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _json_in_html(value: Any) -> str:
    """JSON that cannot end its script element, with null for numbers that are none."""
    text = json.dumps(_finite(value), separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_finite(member) for member in value]
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    return visible(value) if isinstance(value, str) else value


def headline(judged: Judged) -> tuple[str, str]:
    """The verdict in one sentence, and the one that says why."""
    goal, choice = judged.goal, judged.choice
    if not judged.content.rows:
        return _without_cells(judged)
    if (best := choice.best) is None:
        return f"No measured cell fits {goal.budget_hours:.7g} h", choice.why
    span, solved = best.run.span, ""
    if best.result:
        low, high = interval(best.result)
        solved = f", {100 * best.result.mean('attempts'):.0f} % solved ({100 * low:.0f} to {100 * high:.0f})"
    return (
        f"{best.name} at {best.context} tokens fits {goal.budget_hours:.7g} h: "
        f"{rounded(span.mid)} h ({rounded(span.low)} to {rounded(span.high)}){solved}",
        choice.why,
    )


def _without_cells(judged: Judged) -> tuple[str, str]:
    """Of a folder that holds arms or a run of solve alone, or nothing."""
    content, none = (
        judged.content,
        "No cell was measured here, so there are no hours to judge: harness bench does that.",
    )
    if ok := [row for row in content.results if row.ok]:
        best = best_arm(ok)
        low, high = interval(best)
        solved = (
            f"{100 * best.mean('attempts'):.1f} % of {len(best.scores)} tasks ({100 * low:.0f} to {100 * high:.0f} %)"
        )
        return f"{best.spec.model.name} {best.spec.precision}, {best.label}: {solved}", none
    if content.solved:
        names = {row.task for row in content.solved}
        answered = {row.task for row in content.solved if any(row.votes)}
        return f"{len(answered)} of {len(names)} tasks that were tried are answered", none
    return "The record is empty", "No cell was measured: run `harness bench` first."


def tiles(judged: Judged) -> list[tuple[str, str, str, str]]:
    """(label, value, remark, mark of evidence) of the candidate that was chosen."""
    if (best := judged.choice.best) is None:
        return []
    goal, span, row = judged.goal, best.run.span, best.row
    whole = f"{hours(span.low, span.mid, span.high)} h"
    made = [("whole run", whole, f"of {goal.budget_hours:.7g} h", cells.mark_of(best.run))]
    if best.result:
        low, high = interval(best.result)
        remark = f"{100 * low:.0f} to {100 * high:.0f} %, {len(best.result.scores)} tasks"
        made.append(("tasks solved", f"{100 * best.result.mean('attempts'):.1f} %", remark, evidence.MEASURED.mark))
    else:
        made.append(("tasks solved", "not measured", "harness ttft measures it", ""))
    if row.peak_bytes and best.at_own_context:
        of = f"of {row.device_total_bytes / GIB:.1f} GiB" if row.device_total_bytes else "at the peak"
        made.append(("memory", f"{row.peak_bytes / GIB:.1f} GiB", of, evidence.MEASURED.mark))
    made.append(("ARC's sequences", f"{100 * PUBLISHED.coverage(best.context):.0f} %", "fit the context", ""))
    return made


def origin(judged: Judged) -> list[tuple[str, str]]:
    """Where the numbers come from, and the command that makes this page again."""
    rows, results, solved = judged.content.rows, judged.content.results, judged.content.solved
    every: list[Any] = [*rows, *results]

    def names(values: Sequence[str | None]) -> str:
        kept = sorted({value for value in values if value})
        return ", ".join(kept[:6]) + (f" and {len(kept) - 6} more" if len(kept) > 6 else "") or "not recorded"

    started = sorted(row.started for row in (*every, *solved) if row.started)
    versions = {
        name: names([row.versions.get(name) for row in every])
        for name in ("torch", "transformers", "peft", "bitsandbytes")
    }
    goal = judged.goal
    made = [
        ("device", names([row.cell.device_name for row in rows] + [row.spec.device_name for row in results]
                         + [row.device_name or row.device for row in solved])),
        ("measured", f"{started[0]} to {started[-1]}" if started else "not recorded"),
        ("commit", names([row.commit for row in every])),
        *versions.items(),
        ("record", f"{home_relative(judged.content.folder)}: {len(rows)} cells, {len(results)} arms, "
                   f"{len(solved)} attempts of solve"),
        ("page", f"harness report --results {_word(home_relative(judged.content.folder))} "
                 f"--budget-hours {goal.budget_hours:.12g} --steps {goal.steps} --html FILE"),
    ]  # fmt: skip
    if judged.content.hidden:
        made.append(("not shown", f"{judged.content.hidden} older cells; harness report --csv FILE writes all"))
    made += [("left out", sentence) for sentence in judged.content.left_out.sentences()]
    return made
