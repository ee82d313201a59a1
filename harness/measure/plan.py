"""Which cells a sweep measures, and in which order."""

from collections.abc import Iterable, Sequence

from harness.catalog import precisions, trainable
from harness.catalog.precisions import Precision
from harness.errors import UserError
from harness.hardware.info import DeviceReport
from harness.measure.config import SweepConfig
from harness.records.cell import Cell, ModelSpec
from harness.records.measurement import MatmulSpeed, Measurement

SHORTEST = 32  # tokens of the shortest context that is tried instead of one that is too slow


def with_natives(requested: Sequence[Precision], rates: dict[str, MatmulSpeed]) -> list[tuple[Precision, str]]:
    """The requested precisions and why, each once: "native" as what it is on this device, an emulated one followed by
    what a user of this device would take instead."""
    requested = list(dict.fromkeys(precisions.resolve(p, precisions.native_dtype(rates)) for p in requested))
    chosen = [(precision, "asked") for precision in requested]
    for precision in requested:
        # An emulated dtype is measured as asked, and the native one beside it.
        if precision.compute and not _native(precision.compute, rates):
            native = precisions.find(precisions.native_dtype(rates))
            present = [listed for listed, _ in chosen]
            if native not in present:
                chosen.insert(present.index(precision) + 1, (native, f"native here; {precision.name} is emulated"))
    return chosen


def check_names(models: Iterable[ModelSpec], rows: Iterable[Measurement]) -> None:
    """Raises UserError where a folder's model has the name of another one in the record: tables could not tell them
    apart."""
    folders = {spec.name: spec for spec in models if spec.path}
    for row in rows:
        other, spec = row.cell.model, folders.get(row.cell.model.name)
        if spec and other.path != spec.path and other.architecture != spec.architecture:
            raise UserError(
                f"{spec.path}: the record has rows of another model called {spec.name}, of "
                f"{other.path or other.hub_id or 'models.yaml'}; rename the folder, or give another --results"
            )


def _native(dtype: str, rates: dict[str, MatmulSpeed]) -> bool:
    return dtype in rates and rates[dtype].native


def _with_wide(
    spec: ModelSpec, chosen: list[tuple[Precision, str]], rates: dict[str, MatmulSpeed]
) -> list[tuple[Precision, str]]:
    """`chosen`, and fp32 where `spec` can be trained in none of them, for they compute in fp16."""
    computed = [precisions.compute_dtype(precision, rates) for precision, _ in chosen]
    if all(trainable.overflow(spec, dtype) for dtype in computed):
        return [*chosen, (precisions.find("fp32"), "wide enough here; fp16 is not")]
    return chosen


def cells(config: SweepConfig, contexts: Sequence[int], report: DeviceReport) -> list[Cell]:
    """Every model (with where its weights are) x precision x context, a model's contexts from short to long.

    From short to long, because what runs out of memory at one context will at every longer one.
    """
    return [
        Cell(
            model=spec,
            precision=precision.name,
            compute_dtype=precisions.compute_dtype(precision, report.rates),
            context=context,
            recipe=config.recipe,
            weights=weights,
            device=report.device.id,
            device_name=report.device.name,
            why=why,
        )
        for spec, weights in config.models
        for precision, why in _with_wide(spec, with_natives(config.precisions, report.rates), report.rates)
        for context in sorted(set(contexts))
    ]


def groups(cells: Sequence[tuple[int, Cell]]) -> list[list[tuple[int, Cell]]]:
    """The numbered cells by model and precision, each group's in their order."""
    by_name: dict[tuple[str, str], list[tuple[int, Cell]]] = {}
    for number, cell in cells:
        by_name.setdefault((cell.model.name, cell.precision), []).append((number, cell))
    return list(by_name.values())


def check_windows(models: Sequence[ModelSpec], contexts: Sequence[int]) -> None:
    """Raises UserError where no context is within any model's window."""
    if all(context > spec.max_context for spec in models for context in contexts):
        windows = ", ".join(f"{spec.name} {spec.max_context}" for spec in models)
        raise UserError(f"every context asked for is beyond the window ({windows} tokens); ask for a shorter one")
