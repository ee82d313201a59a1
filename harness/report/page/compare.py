"""The page of two records against each other: one file, in which nothing is loaded from elsewhere.

python -m harness compare A B --html changes.html
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis.change import Change
from harness.files import home_relative, write_output
from harness.report.compare import Compared, by_devices, gate_line
from harness.report.compare_notes import notes
from harness.report.compare_tables import QUANTITIES, headings, texts
from harness.report.page.environment import environment, style


def write_page(compared: Compared, path: Path) -> None:
    """Writes the page of `compared` to `path`, whole or not at all.

    Raises UserError where it cannot be written, or jinja2 is missing.
    """
    write_output(path, page(compared))


def page(compared: Compared) -> str:
    """The page as HTML. Raises UserError where jinja2 is missing."""
    own = compared.changes
    groups = [_group(own.same_device, compared, None)] if own.same_device else []
    groups += [_group(listed, compared, names) for names, listed in by_devices(own.other_devices).items()]
    headline, *sentences = compared.sentences or ["Nothing that ran in both"]
    return (
        environment()
        .get_template("compare.html")
        .render(
            style=style(),
            a=home_relative(compared.a),
            b=home_relative(compared.b),
            headline=headline,
            sentences=sentences,
            groups=groups,
            notes=notes(own),
            gate=gate_line(compared),
        )
    )


def _group(listed: Sequence[Change], compared: Compared, devices: tuple[str, str] | None) -> dict[str, Any]:
    tables = []
    for what, title in QUANTITIES.items():
        if rows := [texts(change, compared.limits) for change in listed if change.what == what]:
            tables.append((title, headings(what), rows))
    return {"devices": devices, "tables": tables}
