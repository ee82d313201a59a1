"""The verb that fits what a machine reaches: calibrate."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import parse
from harness.cli.options import Recorded
from harness.errors import UserError
from harness.text import say_once

if TYPE_CHECKING:
    from harness.records.imported import ImportedRun
    from harness.records.measurement import Measurement


def calibrate(results: Recorded = None) -> None:
    """Fit what a machine really reaches on its measured cells; predictions for it are then made with that.

    Examples:

      harness calibrate

      harness calibrate --results results/tesla-t4

      harness calibrate --results results/imported-l4
    """
    from harness.predict import calibration_files, imported_calibration
    from harness.predict.calibration import save_calibration
    from harness.report import style
    from harness.report.progress import ProgressLine

    rows, runs, folder = _to_fit_on(results)
    rows = _undisturbed(rows)
    out = style.console()
    with ProgressLine(out) as progress:
        # The cells are traced without a device, and the figures of the card fitted to their seconds.
        source = f"{sum(row.ok for row in rows) + len(runs)} cells of {folder}"
        calibration = imported_calibration.calibrated(rows, runs, source, partial(progress.count, "tracing"))
    save_calibration(calibration, folder / calibration_files.NAME)
    out.print(f"{calibration.device}: {calibration.points} cells of {', '.join(calibration.models)}", markup=False)
    for kind, times in calibration.slowdown.items():
        out.print(f"  {kind:<11} {times:.2f} times its nominal seconds", markup=False)
    # The error on a model that was not fitted is what a prediction for a new one has.
    if len(calibration.models) > 1:
        out.print(
            f"With each model left out in turn, seconds are off by {calibration_files.typical_error(calibration)} "
            "(standard deviation)."
        )
    else:
        out.print("One model alone says nothing of others: measure a second one for an error.")
    out.print(f"Written to {folder / calibration_files.NAME}", soft_wrap=True, markup=False)


def _to_fit_on(results: Path | None) -> "tuple[list[Measurement], list[ImportedRun], Path]":
    """The rows of a folder's record, its imported runs, either of which may be missing, and the folder."""
    from harness.records import imported, store

    folder = results or _newest()
    runs: list[ImportedRun] = []
    path = folder / imported.ROWS.name
    if path.exists():
        try:
            runs, left_out = store.read(path, imported.ROWS)
        except OSError as problem:
            raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
        for line in left_out.sentences(str(path)):
            say_once(line)
    if runs and not (folder / store.NAME).exists():
        return [], runs, folder
    record = parse.record(folder)
    for line in record.left_out.sentences(str(folder)):
        say_once(line)
    return record.rows, runs, folder


def _undisturbed(rows: "list[Measurement]") -> "list[Measurement]":
    """The rows whose seconds nobody else's work made longer; all of them where there is none."""
    from harness.records.measurement import CROWDED

    quiet = [row for row in rows if CROWDED not in row.notes]
    disturbed = sum(row.ok for row in rows) - sum(row.ok for row in quiet)
    if not disturbed:
        return rows
    which = f"{disturbed} cells were timed while others used their cores"
    if not any(row.ok for row in quiet):
        say_once(f"{which}, all there are: predictions will be too slow; measure again with --fresh")
        return rows
    say_once(f"{which} and are left out; measure them again with --fresh")
    return quiet


def _newest() -> Path:
    """The folder under results/ with the newest record, or imported runs where nobody measured anything."""
    from harness.records import imported, store

    imports = sorted(store.RESULTS.glob(f"*/{imported.ROWS.name}"), key=lambda path: path.stat().st_mtime)
    try:
        return store.latest_folder()
    except UserError:
        if not imports:
            raise
        return imports[-1].parent
