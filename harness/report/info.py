"""The smaller tables: the models that can be named, the plan of a sweep, and the doctor's findings."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.catalog.models import Catalog
from harness.report.format import gib, millions, number, thousands
from harness.report.style import plain_table

if TYPE_CHECKING:
    from harness.arc.coverage import Lengths
    from harness.measure.config import SweepConfig
    from harness.measure.doctor import Findings


def models(known: Catalog, out: Console) -> None:
    table = plain_table(
        ("model", "left"), ("params\n(M)", "right"), ("max\nctx k", "right"), ("type", "left"), ("also", "left")
    )
    for spec in known.models.values():
        params = millions(spec.params_m)
        kind = spec.architecture["model_type"]
        table.add_row(Text(spec.name), params, thousands(spec.max_context), Text(kind), Text(", ".join(spec.aliases)))
    out.print(table)
    out.print(Text(f"From {known.path}. A hub id or a folder with a config.json can be named too."))


def plan(asked: "SweepConfig", known: Catalog, out: Console) -> None:
    """What is known without a device: the cells, and the base weights' size."""
    kinds = [asked.device.partition(":")[0]] if asked.device != "auto" else ["cuda", "cpu"]
    by_kind = {kind: sorted(set(asked.contexts or known.defaults.contexts[kind])) for kind in kinds}
    table = plain_table(
        ("model", "left"), ("params\n(M)", "right"), ("prec", "left"), ("weights\nGiB", "right"), ("contexts", "left")
    )
    for spec, _ in asked.models:
        for i, precision in enumerate(asked.precisions):
            size = gib(int(spec.params_m * 1e6 * precision.weight_bits / 8)) if spec.params_m else "-"
            shown = "; ".join(
                f"{kind} {' '.join(_within(c, spec.max_context) for c in by_kind[kind])}" for kind in kinds
            )
            named = (Text(spec.name), millions(spec.params_m)) if not i else ("", "")
            table.add_row(*named, precision.name, size, Text(shown))
    out.print(table)
    cells = {kind: len(asked.models) * len(asked.precisions) * len(by_kind[kind]) for kind in kinds}
    most = {kind: asked.cap_seconds or known.defaults.cap_seconds[kind] for kind in kinds}
    said = "; ".join(f"{kind}: {cells[kind]} cells, none started above {most[kind]:.0f} s" for kind in kinds)
    out.print(
        Text(
            f"{said}. A precision that the device emulates gets its native one measured beside it. weights GiB: all "
            "parameters at the precision's bits; embeddings and norms stay 16-bit. (w): beyond the window."
        )
    )


def _within(context: int, window: int) -> str:
    return str(context) if context <= window else f"{context}(w)"


def coverage(found: "list[Lengths]", contexts: list[int], how: str, out: Console) -> None:
    """The lengths of each kind of sequence, and the share that fits each context."""
    named = [(name, "right") for name in ("n", "mean", "p50", "p90", "p95", "max", *(f"fit\n{c}" for c in contexts))]
    table = plain_table(("sequences", "left"), *named)
    for kind in found:
        marks = [str(kind.quantile(share)) for share in (0.5, 0.9, 0.95, 1.0)]
        shares = [f"{100 * kind.coverage(context):.0f}%" for context in contexts]
        table.add_row(kind.name, str(len(kind.tokens)), f"{kind.mean:.0f}", *marks, *shares)
    out.print(table)
    out.print(Text(f"\nTokens; {how}. Test questions are without their answers."))


def doctor(found: "Findings", out: Console) -> bool:
    """Prints the findings. Returns whether a sweep can run."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row("python", found.python)
    for name, version in found.versions.items():
        lines.add_row(name, f"{version} (tested: {found.tested.get(name, '-')})")
    if found.device:
        device = found.device
        capability = f", compute capability {device['capability']}" if device["capability"] else ""
        lines.add_row("device", Text(f"{device['id']}: {device['name']}{capability}"))
        lines.add_row("memory", f"{gib(device['total_bytes'])} GiB")
        for other in device["others"]:
            lines.add_row("idle", Text(other))
    for name, rate in found.rates.items():
        word = "native" if rate.native else "emulated"
        lines.add_row(
            name, f"{word}: {number(rate.forward / 1e12)} TFLOP/s forward, {number(rate.backward / 1e12)} backward"
        )
    lines.add_row("hub", "reachable" if found.hub else "not reachable")
    out.print(lines)
    for line in found.problems:
        out.print(Text(f"PROBLEM: {line}.", style="red"))
    for line in found.advice:
        out.print(Text(f"- {line}."))
    if not found.problems:
        out.print("Ready: harness bench")
    return not found.problems
