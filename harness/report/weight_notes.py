"""Which weights were not as they were published: a line per model, above or below the tables of a record."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from harness.catalog.weights import label
from harness.records.arm import ArmResult
from harness.records.measurement import Measurement


def show(rows: Iterable[Measurement], results: Iterable[ArmResult], out: Console) -> None:
    """Prints a line for each model whose weights came from a GGUF; nothing for others."""
    of = [(row.cell.model.name, row.cell.weights) for row in rows]
    of += [(result.spec.model.name, result.spec.weights) for result in results]
    for name, weights in dict.fromkeys((name, label(weights)) for name, weights in of):
        if weights:
            out.print(Text(f"- {name}: weights {weights}."))
