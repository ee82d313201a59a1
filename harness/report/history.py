"""Cells over all records that are there: when each was measured, what a step took, and what has changed."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.history import History
from harness.digits import number
from harness.report.format import cell_name, ratio
from harness.report.style import plain_table

MOST_ROWS, MOST_NOTES = 60, 8


def show(histories: Sequence[History], files: int, out: Console) -> None:
    """Prints a row per cell that was measured more than once, those that changed first, and what differs with them."""
    out.print()
    if not histories:
        out.print(Text(sentence_of_none(files)))
        return
    ordered = sorted(histories, key=lambda history: (not history.changed, -abs(history.change[1] - 1)))
    table = plain_table(
        "<model|<prec|seq\nlen|times|<first|<newest|first\ns/step|newest\ns/step|times the first\n(95 %)"
    )
    for history in ordered[:MOST_ROWS]:
        first, last = history.moments[0], history.moments[-1]
        low, middle, high = history.change
        table.add_row(
            Text(history.row.cell.model.name),
            history.row.cell.label,
            str(history.row.cell.context),
            str(len(history.moments)),
            f"{first.when:%y-%m-%d}",
            f"{last.when:%y-%m-%d}",
            number(first.step_s),
            number(last.step_s),
            f"{ratio(middle)} ({ratio(low)}-{ratio(high)})",
        )
    out.print(table)
    out.print()
    out.print(Text(definition(histories, files)))
    for line in notes(ordered)[:MOST_NOTES]:
        out.print(Text(f"- {line}"))


def sentence_of_none(files: int) -> str:
    return f"History: no cell was measured twice in {files} record{'' if files == 1 else 's'} beside each other."


def definition(histories: Sequence[History], files: int) -> str:
    devices = sorted({history.row.cell.device_name for history in histories})
    several = " Devices are not joined." if len(devices) > 1 else ""
    return (
        f"History: {len(histories)} cells measured more than once in {files} records, on {', '.join(devices)}."
        f"{several} times the first: seconds of an optimiser step, newest over first, with a 95 % interval; of "
        "unchanged cells one in twenty lies outside."
    )


def notes(histories: Sequence[History]) -> list[str]:
    """What changed, and what else differed then; a text that several cells share stands once."""
    lines = []
    for history in histories:
        if history.changed:
            _, middle, _ = history.change
            how = f"{ratio(middle)} times the first" + (
                f"; {', '.join(history.differences)}" if history.differences else "; the same versions"
            )
            lines.append(f"{cell_name(history.row.cell)}: {how}.")
    return lines
