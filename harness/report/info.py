"""The smaller tables: the models of the catalog, the plan of a sweep, sequence lengths, and the doctor's findings."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.catalog import trainable
from harness.catalog.models import Catalog
from harness.catalog.precisions import NATIVE
from harness.digits import number
from harness.report.format import gib, millions, thousands
from harness.report.style import plain_table

if TYPE_CHECKING:
    from harness.arc.lengths import LengthDistribution
    from harness.measure.config import SweepConfig
    from harness.measure.doctor import Findings


def models_table(catalog: Catalog, out: Console) -> None:
    """One row per model of the catalog."""
    table = plain_table("<model|params\n(M)|max\nctx k|<type|<also")
    for spec in catalog.models.values():
        params = millions(spec.params_m)
        kind = spec.architecture["model_type"]
        table.add_row(Text(spec.name), params, thousands(spec.max_context), Text(kind), Text(", ".join(spec.aliases)))
    out.print(table)
    out.print(Text(f"From {catalog.path}. A hub id or a folder with a config.json can be named too."))


def plan_table(config: "SweepConfig", out: Console) -> None:
    """The cells of a sweep and the size of the base weights, without a look at the device."""
    # The defaults differ by kind of device, and with "auto" it is not known which it will be.
    kinds = [config.device.partition(":")[0]] if config.device != "auto" else ["cuda", "cpu"]
    by_kind = {kind: sorted(set(config.contexts[kind])) for kind in kinds}
    table = plain_table("<model|params\n(M)|<prec|weights\nGiB|<contexts")
    for spec, _ in config.models:
        for i, precision in enumerate(config.precisions):
            size = gib(int(spec.params_m * 1e6 * precision.weight_bits / 8)) if spec.params_m else "-"
            contexts = "; ".join(
                f"{kind} {' '.join(_within(c, spec.max_context) for c in by_kind[kind])}" for kind in kinds
            )
            name = (Text(spec.name), millions(spec.params_m)) if not i else ("", "")
            table.add_row(*name, precision.name, size, Text(contexts))
    out.print(table)
    native = "native: bf16 where the device computes it in hardware, else fp16, else fp32. "
    narrow = [spec.name for spec, _ in config.models if trainable.needs_range(spec)]
    # How many cells there are, by the kind of device that it may be.
    cells = {kind: len(config.models) * len(config.precisions) * len(by_kind[kind]) for kind in kinds}
    cap_s = {kind: config.cap_seconds[kind] for kind in kinds}
    counts = "; ".join(f"{kind}: {cells[kind]} cells, cap {cap_s[kind]:.0f} s per cell" for kind in kinds)
    out.print(
        Text(
            f"{counts}. A cell estimated above the cap is not started. {native if NATIVE in config.precisions else ''}"
            "Where the device emulates a precision, the native one is measured too. weights GiB: all parameters at the "
            "precision's bits; embeddings and norms stay 16-bit. (w): beyond the model's context window."
        )
    )
    # Which cells these are depends on what the device computes in.
    if narrow:
        out.print(
            Text(
                f"{', '.join(narrow)}: real weights exceed fp16's range, so a cell that computes in fp16 (on a T4 "
                "native and int4) is not started; where no other is left, fp32 is measured."
            )
        )


def _within(context: int, max_context: int) -> str:
    return str(context) if context <= max_context else f"{context}(w)"


def coverage_table(distributions: "list[LengthDistribution]", contexts: list[int], encoding: str, out: Console) -> None:
    """One row per kind of sequence: its lengths in tokens, and the share that fits each context.

    `encoding` says in words how the lengths were counted.
    """
    table = plain_table("|".join(("<sequences|n|mean|p50|p90|p95|max", *(f"fit\n{c}" for c in contexts))))
    for lengths in distributions:
        quantiles = [f"{lengths.quantile(share):.0f}" for share in (0.5, 0.9, 0.95, 1.0)]
        shares = [f"{100 * lengths.coverage(context):.0f}%" for context in contexts]
        table.add_row(lengths.name, str(lengths.count), f"{lengths.mean:.0f}", *quantiles, *shares)
    out.print(table)
    out.print(Text(f"\nTokens; {encoding}. Test questions are counted without their answers."))


def _environment(findings: "Findings") -> list[tuple[str, str]]:
    """What a card's environment says, as it is called: ("CUDA", "13.0")."""
    names = {
        "cuda": "CUDA",
        "cudnn": "cuDNN",
        "triton": "Triton",
        "driver": "driver",
        "power_limit_w": "power limit (W)",
    }
    return [(word, findings.environment[name]) for name, word in names.items() if name in findings.environment]


def doctor_table(findings: "Findings", out: Console) -> bool:
    """Prints the findings. Returns whether a sweep can run."""
    # Software, then the device, then what it computes in hardware.
    lines = Table.grid(padding=(0, 2))
    lines.add_row("python", findings.python)
    for name, version in findings.versions.items():
        lines.add_row(name, f"{version} (tested: {findings.tested.get(name, '-')})")
    if findings.device:
        device = findings.device
        capability = f", compute capability {device.capability}" if device.capability else ""
        lines.add_row("device", Text(f"{device.id}: {device.name}{capability}"))
        lines.add_row("memory", f"{gib(device.total_bytes)} GiB")
        if findings.environment:
            lines.add_row("card", Text(", ".join(f"{name} {value}" for name, value in _environment(findings))))
        for other in device.others:
            lines.add_row("beside", Text(other))
    for name, rate in findings.rates.items():
        word = "native" if rate.native else "emulated"
        lines.add_row(
            name, f"{word}: {number(rate.forward / 1e12)} TFLOP/s forward, {number(rate.backward / 1e12)} backward"
        )
    if findings.tried:
        lines.add_row("step", "a small model was trained for a few steps, in the native precision and in int4")
    lines.add_row("hub", "reachable" if findings.hub else "not reachable")
    out.print(lines)
    for line in findings.problems:
        out.print(Text(f"PROBLEM: {line}.", style="red"))
    for line in findings.advice:
        out.print(Text(f"- {line}."))
    if not findings.problems:
        out.print("Ready: harness bench")
    return not findings.problems
