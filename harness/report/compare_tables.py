"""How one record stands against another, on the terminal: sentences, a table per quantity, and what differs.

python -m harness compare A B
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.change import ACCURACY, MEMORY, NATS, SECONDS, Change
from harness.analysis.gate import Limits
from harness.digits import number
from harness.records.arm import ArmResult
from harness.report.compare import Compared, by_devices, gate_line
from harness.report.compare_notes import notes
from harness.report.comparison import p_value
from harness.report.format import GIB
from harness.report.style import folded, plain_table

MOST_ROWS = 60  # of a table; the CSV has all
QUANTITIES = {
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
    for what, heading in QUANTITIES.items():
        if own := [change for change in every if change.what == what]:
            out.print(Text(f"\n{heading}"))
            out.print(_table(own, compared.limits))
            if len(own) > MOST_ROWS:
                out.print(f"{len(own) - MOST_ROWS} rows of smaller changes are left out; --csv FILE has all.")


def headings(what: str) -> tuple[str, ...]:
    """Of a table of `what`; the first three align left, the rest right but for the last, a mark without a name."""
    change = "B - A" if what == ACCURACY else "B / A"
    if what in (NATS, ACCURACY):
        return ("model", "prec", "arm", "A", "B", change, "95 %", "p", "")
    return ("model", "prec", "seq", "A", "B", change, "95 %", "")


def texts(change: Change, limits: Limits) -> tuple[str, ...]:
    """The row of a change under `headings`."""
    mark = "crowded" if change.crowded else "WORSE" if limits.exceeded(change) else ""
    if isinstance(change.row, ArmResult):
        spec = change.row.spec
        return spec.model.name, spec.precision, change.row.label, *_shown(change), p_value(change.p), mark
    cell = change.row.cell
    return cell.model.name, cell.label, str(cell.context), *_shown(change), mark


def _table(every: Sequence[Change], limits: Limits) -> Table:
    what = every[0].what
    left = ("model", "prec", "arm", "")
    table = plain_table("|".join(f"<{name}" if name in left else name for name in headings(what)))
    if len(every) > MOST_ROWS:
        largest = sorted(every, key=lambda own: -abs(own.worse))[:MOST_ROWS]
        chosen = {id(own) for own in largest}
        every = [own for own in every if id(own) in chosen]
    for own in every:
        model, label, *others = texts(own, limits)
        table.add_row(model, folded(label), *others)
    return table


def _shown(change: Change) -> tuple[str, str, str, str]:
    """A, B, the change, its interval."""
    if change.what == ACCURACY:
        low, middle, high = (100 * value for value in (change.low, change.middle, change.high))
        return f"{100 * change.before:.1f}", f"{100 * change.after:.1f}", f"{middle:+.1f}", f"{low:+.1f} to {high:+.1f}"
    unit = GIB if change.what == MEMORY else 1
    span = f"{number(change.low)} to {number(change.high)}"
    return number(change.before / unit), number(change.after / unit), number(change.middle), span
