"""The verbs that look at what there is: models and doctor."""

import typer

from harness.cli.options import Device, ModelsFile


def models(models_file: ModelsFile = None) -> None:
    """List the models that can be named, with their aliases.

    Example:

      harness models
    """
    from harness.catalog import models as catalog
    from harness.report import info, style

    info.models_table(catalog.load(models_file), style.console())


def doctor(device: Device = "auto") -> None:
    """Look at this machine: device, memory, native dtypes, versions, what would go wrong, and one small step.

    Example:

      harness doctor
    """
    from harness.measure.doctor import examine
    from harness.report import info, style
    from harness.report.progress import ProgressLine

    out = style.console()
    with ProgressLine(out) as progress:
        findings = examine(device, checked=lambda done, total: progress.count("checks:", done, total))
    if not info.doctor_table(findings, out):
        raise typer.Exit(1)
