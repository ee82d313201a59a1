"""How one record stands against another, on the terminal: sentences, a table per quantity, and what differs.

python -m harness compare A B
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.change import ACCURACY, MEMORY, NATS, SECONDS, Change
from harness.analysis.gate import Limits
from harness.records.arm import ArmResult
from harness.report.compare import Compared, by_devices, gate_line
from harness.report.compare_notes import notes
from harness.report.comparison import p_value
from harness.report.format import GIB, number
from harness.report.style import folded, plain_table

MOST_ROWS = 60  # of a table; the CSV has all
_HEADINGS = {
    SECONDS: "Seconds per step",
    MEMORY: "Peak memory, GiB",
    NATS: "Nats per grid",
    ACCURACY: "Tasks solved, %",
}


def show(compared: Compared, out: Console, gate: bool = False) -> None:
    """Prints the sentences, a table per quantity and device, what differs, and with `gate` its verdict at the end."""
    out.print(Text(f"A, before: {compared.a}\nB, after:  {compared.b}"), soft_wrap=True)
    for line in compared.sentences:
        out.print(Text(line, style="bold"))
    _tables(compared.changes.same_device, compared, out)
    for names, own in by_devices(compared.changes.other_devices).items():
        out.print(Text(f"\nDifferent devices, not joined with others. A: {names[0]}; B: {names[1]}."))
        _tables(own, compared, out)
    lines = notes(compared.changes)
    if lines:
        out.print()
    for line in lines:
        out.print(Text(f"- {line}"))
    if gate:
        out.print(Text(f"\n{gate_line(compared)}", style="bold"))


def _tables(every: Sequence[Change], compared: Compared, out: Console) -> None:
    for what, heading in _HEADINGS.items():
        if own := [change for change in every if change.what == what]:
            out.print(Text(f"\n{heading}"))
            out.print(_table(own, compared.limits))
            if len(own) > MOST_ROWS:
                out.print(f"{len(own) - MOST_ROWS} rows of smaller changes are left out; --csv FILE has all.")


def _table(every: Sequence[Change], limits: Limits) -> Table:
    of_arms = every[0].what in (NATS, ACCURACY)
    change = "B - A" if every[0].what == ACCURACY else "B / A"
    what, p = ("<arm", "|p") if of_arms else ("seq", "")
    table = plain_table(f"<model|<prec|{what}|A|B|{change}|95 %{p}|<")
    if len(every) > MOST_ROWS:
        largest = sorted(every, key=lambda own: -abs(own.worse))[:MOST_ROWS]
        chosen = {id(own) for own in largest}
        every = [own for own in every if id(own) in chosen]
    for own in every:
        before, after, *span = _shown(own)
        mark = "crowded" if own.crowded else "WORSE" if limits.exceeded(own) else ""
        if isinstance(own.row, ArmResult):
            spec = own.row.spec
            table.add_row(spec.model.name, spec.precision, own.row.label, before, after, *span, p_value(own.p), mark)
        else:
            cell = own.row.cell
            table.add_row(cell.model.name, folded(cell.label), str(cell.context), before, after, *span, mark)
    return table


def _shown(change: Change) -> tuple[str, str, str, str]:
    """A, B, the change, its interval."""
    if change.what == ACCURACY:
        low, middle, high = (100 * value for value in (change.low, change.middle, change.high))
        return f"{100 * change.before:.1f}", f"{100 * change.after:.1f}", f"{middle:+.1f}", f"{low:+.1f} to {high:+.1f}"
    unit = GIB if change.what == MEMORY else 1
    span = f"{number(change.low)} to {number(change.high)}"
    return number(change.before / unit), number(change.after / unit), number(change.middle), span
