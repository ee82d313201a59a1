"""The verb that makes one record of several: merge."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import SeveralFolders
from harness.errors import UserError


def merge(
    folders: SeveralFolders,
    into: Annotated[Path, typer.Option(help="The folder that gets their rows; may have a record already.")],
    tasks: Annotated[str | None, typer.Option(help="Of solve's shards: the whole file of challenges.")] = None,
    out: Annotated[Path, typer.Option(help="With --tasks: the submission of all shards.")] = Path("submission.json"),
) -> None:
    """Make one record of several folders: shards of one job, or machines that worked on the same cells.

    Examples:

      harness merge shard-1 shard-2 shard-3 --into results/tesla-t4

      harness merge shard-* --into all --tasks arc-agi_test_challenges.json --out submission.json

    Merging again changes nothing. Of a cell that was measured twice the later row stays, and both are named.
    """
    from harness.records import solving
    from harness.records.merge import merge as merged
    from harness.solve import submission

    if tasks:
        from harness.arc.sources import load

        chosen = load(tasks)[0]
        submission.check(out, chosen)
    result = merged(folders, into, print)
    for line in result.conflicts:
        print(line)
    corrupt = f", {result.corrupt} corrupt lines left out" if result.corrupt else ""
    older = f", {result.older} rows of older rules left out" if result.older else ""
    counts = f"{result.added} new rows, {result.same} that it had, {len(result.conflicts)} conflicts"
    print(f"{into}: {counts}{corrupt}{older}")
    if tasks:
        rows, others = solving.parted(into)
        if not rows:
            raise UserError(f"{into}: has no row of solve")
        submission.write(out, chosen, solving.all_attempts(rows))
        answered = len({row.task for row in rows if any(row.votes)} & {task.id for task in chosen})
        print(f"{answered} of {len(chosen)} tasks answered; submission in {out}")
        if others:
            devices = ", ".join(sorted({row.device_name or "a device that the row does not name" for row in others}))
            print(f"not in it: {len(others)} rows of other settings or earlier runs, made on {devices}")
