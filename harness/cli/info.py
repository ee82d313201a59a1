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

    if not info.doctor_table(examine(device), style.console()):
        raise typer.Exit(1)
