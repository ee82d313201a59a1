"""Which cells a sweep measures, in which order, and which of them are not worth starting."""

from collections.abc import Sequence

from harness.catalog import precisions as catalog
from harness.catalog.precisions import Precision
from harness.records.cell import Cell, ModelSpec, Recipe
from harness.records.measurement import FlopCount, MatmulSpeed

MIN_MICRO_STEPS = 4  # one to warm up and three samples
_EFFICIENCY = 0.7  # of the probed rate, for an estimate that decides only what is not started
_LOAD_S, _LOAD_BYTES_PER_S = 8.0, 1e9  # libraries; weights
SHORTEST = 32


def with_natives(asked: Sequence[Precision], rates: dict[str, MatmulSpeed]) -> list[tuple[Precision, str]]:
    """The asked precisions, each emulated one followed by what a user of this device would take instead; and why."""
    out = [(precision, "asked") for precision in asked]
    for precision in asked:
        if precision.compute and not _native(precision.compute, rates):
            native = catalog.find(catalog.native_dtype(rates))
            if native not in [p for p, _ in out]:
                out.insert(
                    [p for p, _ in out].index(precision) + 1, (native, f"native here; {precision.name} is emulated")
                )
    return out


def _native(dtype: str, rates: dict[str, MatmulSpeed]) -> bool:
    return dtype in rates and rates[dtype].native


def cells(
    models: Sequence[tuple[ModelSpec, str]],
    asked: Sequence[Precision],
    contexts: Sequence[int],
    rates: dict[str, MatmulSpeed],
    recipe: Recipe,
    device: str,
    device_name: str,
) -> list[Cell]:
    """Every model (with where its weights are) x precision x context, a model's contexts from short to long.

    From short to long, because what runs out of memory at one context will at every longer one.
    """
    return [
        Cell(
            spec,
            precision.name,
            catalog.compute_dtype(precision, rates),
            context,
            recipe,
            weights,
            device,
            device_name,
            why,
        )
        for spec, weights in models
        for precision, why in with_natives(asked, rates)
        for context in sorted(set(contexts))
    ]


def estimate_s(cell: Cell, work: FlopCount, params: int, rate: MatmulSpeed) -> float:
    """Seconds of the smallest run of `cell`: load, one warm-up and three micro-steps, from the counted FLOPs.

    An estimate, good to a factor of two, and never reported as a measurement.
    """
    load = _LOAD_S + params * catalog.find(cell.precision).weight_bits / 8 / _LOAD_BYTES_PER_S
    return load + MIN_MICRO_STEPS * micro_step_s(cell, work, rate)


def micro_step_s(cell: Cell, work: FlopCount, rate: MatmulSpeed) -> float:
    forward, backward = work.forward(cell.context), work.backward(cell.context)
    return cell.recipe.micro_batch * (forward / rate.forward + backward / rate.backward) / _EFFICIENCY
