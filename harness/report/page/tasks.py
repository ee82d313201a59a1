"""ARC tasks with a model's answers, in ARC's colours: grids as small SVG elements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.analysis.candidates import best_arm, comparable_results
from harness.arc import sources
from harness.arc.encode import from_rows
from harness.arc.task import Grid, Solutions, Task
from harness.errors import UserError
from harness.records.arm import ArmResult, Attempts
from harness.records.solving import all_attempts
from harness.report.page.judged import Judged
from harness.report.pictures import panels_of, printable, status_of, test_inputs
from harness.report.svg import COLOURS, Panel

MOST_TASKS, MOST_BYTES = 40, 400_000
STYLE = "".join(f".k{number}{{fill:{colour}}}" for number, colour in enumerate(COLOURS))


class TaskCard(NamedTuple):
    """A task's answers: `rows` of (label, SVG) per test input, and its demonstrations where the task is at hand."""

    name: str
    status: str
    rows: list[list[tuple[str, str]]]
    demonstrations: list[list[tuple[str, str]]]


class Shown(NamedTuple):
    """The tasks that are drawn, and a sentence on whose answers they are."""

    sentence: str
    cards: list[TaskCard]


def shown(judged: Judged) -> Shown | None:
    """Answers of the best arm, or of a run of solve where there is no arm; None without any answer."""
    content = judged.content
    results = [row for row in comparable_results(content.results) if row.attempts and row.scores]
    if results:
        arm = best_arm(results)
        tasks, solutions = content.tasks or _at_hand(arm.spec.dataset)
        whose = f"{arm.spec.model.name} {arm.spec.precision}, {arm.label}, on {arm.spec.dataset}"
        return _shown(whose, list(arm.spec.tasks), arm.attempts, tasks, solutions, arm)
    if content.solved:
        attempts = all_attempts(content.solved)
        tasks, solutions = content.tasks or ((), {})
        return _shown("the run of solve", list(attempts), attempts, tasks, solutions, None)
    return None


def _at_hand(dataset: str) -> tuple[Sequence[Task], Solutions]:
    """The tasks of a set that comes with the program. A record may name any path: what lies there is not opened."""
    name = dataset.partition(",")[0]  # before "grids to 10"
    if not all(part in (*sources.SETS, sources.GENERATED) for part in name.split("+")):
        return (), {}
    try:
        return sources.load(name)
    except UserError:
        return (), {}


def _shown(
    whose: str,
    names: Sequence[str],
    attempts: Attempts,
    tasks: Sequence[Task],
    solutions: Solutions,
    arm: ArmResult | None,
) -> Shown | None:
    by_id = {task.id: task for task in tasks}
    scores = {score.id: score.attempts for score in arm.scores} if arm else {}
    answered = [name for name in names if any(attempts.get(name, ()))]
    cards, size = [], 0
    for name in answered[:MOST_TASKS]:
        card = _card(name, attempts, by_id.get(name), solutions, scores)
        size += sum(len(svg) for row in (*card.rows, *card.demonstrations) for _, svg in row)
        if size > MOST_BYTES:
            break
        cards.append(card)
    if not cards:
        return None
    count = (
        f"{len(cards)} of {len(answered)} tasks with an answer" if len(cards) < len(answered) else f"{len(cards)} tasks"
    )
    if silent := len(names) - len(answered):
        count += f" ({silent} more have none)"
    marks = (
        " Dots mark wrong cells." if any("stroke-linecap" in s for c in cards for row in c.rows for _, s in row) else ""
    )
    alone = "" if tasks else " The tasks themselves are not at hand: their inputs and true outputs are not drawn."
    return Shown(f"{count}: answers of {whose}.{marks}{alone}", cards)


def _card(
    name: str, attempts: Attempts, task: Task | None, solutions: Solutions, scores: Mapping[str, float]
) -> TaskCard:
    answers = attempts.get(name, ())
    # A set may have changed since: then its task is another one.
    if task is not None and len(answers) <= len(task.test_inputs) == len(solutions.get(name, task.test_inputs)):
        tests = test_inputs(task, attempts, solutions)
        rows = [[_drawn(panel) for panel in panels_of("input", test)] for test in tests]
        demonstrations = [
            [_drawn(Panel("input", pair.input)), _drawn(Panel("output", pair.output))] for pair in task.demonstrations
        ]
        return TaskCard(printable(name), status_of(tests), rows, demonstrations)
    grids = [[grid for text in texts if (grid := from_rows(text))] for texts in answers]
    rows = [[_drawn(Panel(f"attempt {n}", grid)) for n, grid in enumerate(row, 1)] for row in grids if row]
    status = "no answer" if not rows else "truth unknown"
    if rows and name in scores:
        status = "solved" if scores[name] == 1 else "wrong" if not scores[name] else f"{100 * scores[name]:.0f} % right"
    return TaskCard(printable(name), status, rows, [])


def _drawn(panel: Panel) -> tuple[str, str]:
    return panel.label, svg(panel) if panel.grid else ""


def svg(panel: Panel) -> str:
    """The grid of a panel: a rectangle of its commonest colour, one path per other colour, lines between cells."""
    grid: Grid = panel.grid or ((0,),)
    height, width = len(grid), len(grid[0])
    common = Counter(colour for row in grid for colour in row).most_common(1)[0][0]
    paths: dict[int, str] = {}
    for y, row in enumerate(grid):
        x = 0
        while x < width:
            end = x + 1
            while end < width and row[end] == row[x]:
                end += 1
            if row[x] != common:
                paths[row[x]] = paths.get(row[x], "") + f"M{x} {y}h{end - x}v1h{x - end}z"
            x = end
    lines = "".join(f"M{x} 0v{height}" for x in range(1, width)) + "".join(f"M0 {y}h{width}" for y in range(1, height))
    dots = "".join(f"M{x + 0.5:g} {y + 0.5:g}h0" for y, x in sorted(panel.wrong_cells))
    parts = [f'<path class="k{common}" d="M0 0h{width}v{height}h-{width}z"/>']
    parts += [f'<path class="k{colour}" d="{path}"/>' for colour, path in sorted(paths.items())]
    if lines:
        parts.append(f'<path d="{lines}" stroke="#777" stroke-width=".05"/>')
    if dots:
        parts += [
            f'<path d="{dots}" stroke="{ink}" stroke-width="{size}" stroke-linecap="round"/>'
            for ink, size in (("#000", 0.46), ("#fff", 0.28))
        ]
    pixels = max(3.0, min(20.0, 140 / max(width, height)))
    return (
        f'<svg class="grid" viewBox="0 0 {width} {height}" width="{width * pixels:.0f}" height="{height * pixels:.0f}" '
        f'role="img" aria-label="{panel.label}, {height} rows of {width} cells">{"".join(parts)}</svg>'
    )
