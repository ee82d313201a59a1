"""Which weights rows are of whose names are alike, as of weights that were saved anew into the same folder."""

from collections.abc import Mapping, Sequence

from harness.catalog.weights import short
from harness.records.arm import ArmResult
from harness.records.measurement import Measurement

Marks = Mapping[tuple[str, str], str]


def weight_marks(rows: Sequence[Measurement], results: Sequence[ArmResult] = ()) -> Marks:
    """By model and weights a mark to stand behind a precision, as "/0f3a99c1". Only models have some of which two rows,
    or tables of arms, would else be called the same."""
    of: dict[tuple[str, ...], dict[str, None]] = {}
    for row in rows:
        named = (row.cell.model.name, row.cell.label, str(row.cell.context))
        of.setdefault(named, {})[row.cell.weights] = None
    for result in results:
        of.setdefault((result.spec.model.name, result.spec.precision), {})[result.spec.weights] = None
    alike = {model for (model, *_), weights in of.items() if len(weights) > 1}
    return {(name, own): f"/{short(own)}" for (name, *_), weights in of.items() if name in alike for own in weights}


def mark_behind(row: Measurement, marks: Marks) -> str:
    """The mark of `row`'s model and weights among `marks`; empty without one."""
    return marks.get((row.cell.model.name, row.cell.weights), "")
