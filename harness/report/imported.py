"""Imported runs on the terminal, each beside what is predicted of it."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.digits import number
from harness.predict.imported import peak_as_logged
from harness.predict.prediction import Prediction
from harness.records.imported import ImportedRun
from harness.report.format import gib
from harness.report.style import folded, plain_table


def imported_table(pairs: Sequence[tuple[ImportedRun, Prediction]], out: Console) -> None:
    """Prints one row per run: seconds per step and memory by its log, and by the prediction as it is now."""
    shown = plain_table(
        "<model|<card|<prec|mean\nlen|seqs/\nstep|s per\nstep|pre-\ndicted|error|peak\nGiB|pre-\ndicted|error"
    )
    for run, predicted in pairs:
        peak = peak_as_logged(run, predicted)
        count = max(run.cell.recipe.data_parallel, run.cell.recipe.layer_split)
        shown.add_row(
            Text(run.cell.model.name),
            f"{count}x{run.cell.device_name}" if count > 1 else run.cell.device_name,
            folded(run.cell.label),
            str(run.cell.context),
            str(run.cell.recipe.sequences_per_step),
            number(run.step_s),
            number(predicted.step_s),
            _error(predicted.step_s, run.step_s),
            gib(run.peak_bytes),
            gib(round(peak)) if run.peak_bytes else "-",
            _error(peak, run.peak_bytes) if run.peak_bytes else "-",
        )
    out.print()
    out.print(shown)
    out.print()
    out.print(
        Text(
            "IMPORTED: told by logs of others, the mean of a whole run; predicted: what `harness predict` says of the "
            "same step at the mean length, whereas a log's peak is its longest sequences'."
        )
    )
    for run, _ in pairs:
        for note in run.notes:
            out.print(Text(f"- {run.source}: {note}."))


def _error(predicted: float, real: float) -> str:
    return f"{100 * (predicted / real - 1):+.0f}%"
