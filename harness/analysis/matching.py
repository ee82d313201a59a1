"""Rows of two records that are of the same thing: on the same device, on another one, or in one record only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from harness.records.arm import ArmResult
from harness.records.cell import Recipe
from harness.records.measurement import Measurement
from harness.records.stored import to_stored

Row = TypeVar("Row", Measurement, ArmResult)
_RANDOM, _LOADED = "random", "loaded"
_BASELINE = "baseline"  # the arm that does not train


@dataclass(frozen=True)
class Matching(Generic[Row]):
    """`pairs` are (before, after) on one device, `other_devices` those whose only counterpart is on another one."""

    pairs: list[tuple[Row, Row]]
    other_devices: list[tuple[Row, Row]]
    only_before: list[Row]
    only_after: list[Row]


def cells(before: Sequence[Measurement], after: Sequence[Measurement]) -> Matching[Measurement]:
    """Cells are the same by model, precision, compute dtype, context, kind of weights, and the recipe as it was
    requested; where memory did not suffice for its micro-batch, a smaller one was measured."""
    return _matched(before, after, _cell_key, lambda row: row.cell.device_name)


def arms(before: Sequence[ArmResult], after: Sequence[ArmResult]) -> Matching[ArmResult]:
    """Arms are the same by all that decides what is trained, answered and scored; kernels, micro-batches and the like
    may differ."""
    return _matched(before, after, _arm_key, lambda row: row.spec.device_name)


def _matched(
    before: Sequence[Row], after: Sequence[Row], key: Callable[[Row], str], device: Callable[[Row], str]
) -> Matching[Row]:
    # Of several rows of one thing, as of two versions of torch, the newest counts.
    older, newer = ({(key(row), device(row)): row for row in rows} for rows in (before, after))
    pairs = [(row, newer[where]) for where, row in older.items() if where in newer]
    left = {where: row for where, row in older.items() if where not in newer}
    right = {where: row for where, row in newer.items() if where not in older}
    # A thing that is left over on both sides was measured on other devices.
    free: dict[str, list[tuple[str, str]]] = {}
    for where in right:
        free.setdefault(where[0], []).append(where)
    common = [where for where in left if where[0] in free]
    across = [(left.pop(where), right.pop(free[where[0]].pop(0))) for where in common if free[where[0]]]
    return Matching(pairs, across, list(left.values()), list(right.values()))


def _cell_key(row: Measurement) -> str:
    cell = row.cell
    recipe = replace(cell.recipe, micro_batch=row.requested_micro_batch or cell.recipe.micro_batch)
    return repr((cell.model.name, _shape(cell.model.architecture), cell.precision, cell.compute_dtype, cell.context,
                 _kind(cell.weights), to_stored(recipe)))  # fmt: skip


def _arm_key(row: ArmResult) -> str:
    spec, usual = row.spec, Recipe()
    # What changes seconds and memory alone.
    recipe = replace(
        spec.recipe,
        micro_batch=usual.micro_batch,
        gradient_checkpointing=usual.gradient_checkpointing,
        kernels=usual.kernels,
        data_parallel=usual.data_parallel,
    )
    training = (spec.steps, spec.scope, to_stored(recipe)) if row.arm != _BASELINE else ()
    return repr((row.arm, spec.model.name, _shape(spec.model.architecture), _kind(spec.weights), spec.precision,
                 spec.compute_dtype, spec.dataset, spec.tasks, spec.context, spec.encoding, spec.views, spec.seed,
                 spec.too_long, spec.decode, spec.select, training))  # fmt: skip


def _shape(architecture: dict) -> list:
    return sorted(map(repr, architecture.items()))


def _kind(weights: str) -> str:
    return _RANDOM if weights == _RANDOM else _LOADED
