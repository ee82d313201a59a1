"""The verb that holds one record against another: compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import limits
from harness.cli import parse
from harness.cli.options import After, Before
from harness.errors import UserError
from harness.records.store import without_collector
from harness.text import say_once

if TYPE_CHECKING:
    from harness.report.compare import Compared


def configure(
    before: Path,
    after: Path,
    *,
    tolerance: float | None = None,
    deviations: float | None = None,
    drift: float | None = None,
    any_device: bool = False,
    allow_missing: bool = False,
) -> "Compared":
    """The comparison of two records, A and B. Raises UserError for a folder without one, and for two that have nothing
    in common.

    `tolerance` and `drift` are percent, as on the command line.
    """
    from harness.analysis.change import changes
    from harness.analysis.gate import Limits
    from harness.report.compare import Compared

    usual = Limits()
    limits.within("--tolerance", tolerance, limits.Percent)
    limits.within("--deviations", deviations, limits.Deviations)
    limits.within("--drift", drift, limits.Percent)
    records = parse.record_at(before), parse.record_at(after)
    for path, record in zip((before, after), records, strict=True):
        for line in record.left_out.sentences(str(path)):
            say_once(line)
    older, newer = ((record.rows, record.results) for record in records)
    own = changes(older, newer, own_drift=None if drift is None else drift / 100)
    if own.nothing_in_common:
        raise UserError(f"{before} and {after} have no cell and no arm in common; compare the same models and contexts")
    chosen = Limits(
        tolerance=usual.tolerance if tolerance is None else tolerance / 100,
        deviations=usual.deviations if deviations is None else deviations,
    )
    return Compared(a=before, b=after, changes=own, limits=chosen, any_device=any_device, allow_missing=allow_missing)


@without_collector()
def compare(
    before: Before,
    after: After,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit 1 where B is slower, larger or less accurate than noise explains.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="Percent (of tasks solved: points) that the gate lets pass; 5.")
    ] = None,
    deviations: Annotated[
        float | None, typer.Option(help="Standard deviations of a change that the gate lets pass; 3.")
    ] = None,
    drift: Annotated[
        float | None,
        typer.Option(help="Percent, a standard deviation, by which two runs of this machine differ, if known."),
    ] = None,
    any_device: Annotated[
        bool, typer.Option("--any-device", help="With --gate: judge records of different devices too.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="With --gate: pass although some that ran in A is not in B.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every comparison to this CSV file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page, which needs no network, to this file.")] = None,
) -> None:
    """Compare two records: how B (after) stands against A (before), in seconds, memory and accuracy, with intervals.

    Examples:

      harness compare results/before results/after

      harness compare results/main results/branch --gate --tolerance 10 --csv changes.csv --html changes.html

      harness compare results/tesla-t4 results/reference/published

    With --gate the exit code is 1 where a cell or arm of B is worse than in A by more than the tolerance and by more
    than so many standard deviations, at the best end of its 95 % interval too, or fails or lacks where it ran in A.
    """
    from harness.report import compare_published as published
    from harness.report import style
    from harness.report.compare import write_csv
    from harness.report.compare_tables import show

    if published.is_table(before):
        raise UserError(f"{before} is a table of published steps; name the record first and the table second")
    if published.is_table(after):
        options = {
            "--gate": gate,
            "--tolerance": tolerance,
            "--deviations": deviations,
            "--drift": drift,
            "--any-device": any_device,
            "--allow-missing": allow_missing,
            "--csv": csv,
            "--html": html,
        }
        if given := [name for name, value in options.items() if value is not None and value is not False]:
            raise UserError(
                f"published steps are of other machines: they are shown and not judged; leave out {', '.join(given)}"
            )
        published.show(parse.record_at(before).rows, published.table_of(after), style.console())
        return
    compared = configure(
        before, after, tolerance=tolerance, deviations=deviations, drift=drift, any_device=any_device,
        allow_missing=allow_missing,
    )  # fmt: skip
    # Where nothing can be judged that ends here.
    passed = not gate or compared.passed
    if csv:
        write_csv(compared, csv)
    if html:
        from harness.report.page.compare import write_page

        write_page(compared, html)
    show(compared, style.console(), gate)
    if not passed:
        raise typer.Exit(1)
