"""Fits what cards reach that nothing was measured on (harness/catalog/efficiency.py), and says how wrong it is.

python -m bench.fit_priors

On the published steps that are exact or near, the eight of ARC, and this project's own on a card: one slowdown per kind
of operation for all cards, products beyond what their card's sheet and power say. Printed are the slowdowns to commit,
and the errors with each card, and with each source, left out of the fit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench import published_steps, reference_rows
from bench.kept_traces import KeptTraces
from bench.published_steps import PublishedStep
from harness.catalog import efficiency
from harness.catalog.accelerators import CPU, Accelerator
from harness.predict import calibration, calibration_files, prediction, roofline, step_seconds
from harness.predict.calibration import Point
from harness.predict.roofline import GEMM, Trace
from harness.records import store

# What is known of the kinds before any step: (slowdown, standard deviation of its logarithm). Launches take some 20 us
# of an interpreter; element by element cards read at 85 to 90 % of their bandwidth.
_BEFORE = {
    "product": (1.0, 0.05),
    "thin": (3.0, 0.3),
    "product4bit": (2.0, 0.3),
    "attention": (2.0, 0.15),
    "memory": (1.15, 0.1),
    "dequantize": (2.0, 0.15),
    "launch": (1.0, 0.1),
    "host": (2.5, 0.15),
}
_LOG_SIGMA = 0.15  # of a published step's seconds, where the program is right
_OWN_LOG_SIGMA = 0.3  # of this project's first, short samples on a card, bound by one virtual machine's interpreter
_SOURCE_ROWS = 12  # a source counts as so many rows at most, for its rows err together


@dataclass(frozen=True)
class Step:
    """A micro-step, with the card and the source that it comes from."""

    card: str
    source: str
    name: str
    point: Point


def bare_card(name: str) -> str:
    """The card whatever its memory: both A100s are left out together."""
    return name.removesuffix("-40gb").removesuffix("-80gb")


def _relative(point: Point, accelerator: Accelerator) -> Point:
    """`point` with products at what the card's sheet and power let them reach."""
    share = efficiency.product_share(accelerator)
    return replace(point, nominal={**point.nominal, GEMM: point.nominal[GEMM] / share})


def steps(rows: Sequence[PublishedStep], traces: Mapping[str, Trace], kept: KeptTraces) -> list[Step]:
    """Those of `rows` that are exact or near, ARC's, and this project's own on cards."""
    out = []
    for row in rows:
        if row.seconds and row.comparable != "rough":
            point = _relative(_point(row, row.seconds, traces[row.name]), row.accelerator)
            out.append(Step(bare_card(row.accelerator.name), row.source, row.name, point))
    for folder in reference_rows.folders():
        measured = store.read(folder / store.NAME)[0]
        if measured[0].cell.device == CPU:
            continue
        accelerator, seen = calibration_files.points_of_rows(measured, trace_all=kept.trace_all)
        for cell, point, _ in seen:
            own = replace(_relative(point, accelerator), log_sigma=_OWN_LOG_SIGMA)
            out.append(Step(bare_card(accelerator.name), "own", reference_rows.name_of(cell), own))
    for name, card, point in reference_rows.arc24_points(kept):
        arc = replace(_relative(point, card), log_sigma=max(point.log_sigma, _LOG_SIGMA))
        out.append(Step(card.name, "ironbar/arc24", name, arc))
    return out


def _point(row: PublishedStep, seconds: float, trace: Trace) -> Point:
    """The seconds of a micro-step: what the row says, less the update as it is predicted."""
    compute = prediction.compute_of(row.precision, row.accelerator)
    if row.per == "step":
        assumed = calibration.prior(row.accelerator.kind, row.accelerator)
        predicted = prediction.predict_cell(row.request(assumed), {row.context: trace})
        count = row.recipe.micro_steps_per_step
        seconds = (seconds - (predicted.step_s - count * predicted.micro_s)) / count
    trace = step_seconds.as_run(trace, row.recipe, row.accelerator, compute)
    return Point(row.spec.name, roofline.nominal_seconds(trace, row.accelerator), seconds, _LOG_SIGMA)


def fitted(used: Sequence[Step]) -> dict[str, float]:
    """The slowdowns on `used`; rows of a large source count for less each."""
    sources = [step.source for step in used]
    points = []
    for step in used:
        weight = min(1.0, _SOURCE_ROWS / sources.count(step.source))
        points.append(replace(step.point, log_sigma=step.point.log_sigma / math.sqrt(weight)))
    centres = {kind: slowdown for kind, (slowdown, _) in _BEFORE.items()}
    return calibration.fit_slowdown(centres, points, {kind: sigma for kind, (_, sigma) in _BEFORE.items()})


def left_out(all_steps: Sequence[Step], group: Callable[[Step], str]) -> dict[str, dict[str, float]]:
    """The slowdowns fitted without each group, by its name."""
    names = dict.fromkeys(map(group, all_steps))
    return {name: fitted([step for step in all_steps if group(step) != name]) for name in names}


def _summary(title: str, errors: list[float]) -> str:
    sizes = sorted(map(abs, errors))
    ninth = sizes[math.ceil(0.9 * len(sizes)) - 1]
    return f"{title}: {len(sizes)} rows, median {100 * median(sizes):.1f} %, 90th percentile {100 * ninth:.1f} %"


def main() -> None:
    kept = KeptTraces()
    rows = published_steps.read()
    all_steps = steps(rows, published_steps.traces(rows, kept), kept)
    for kind, slowdown in fitted(all_steps).items():
        print(f'    "{kind}": {slowdown:.3g},')
    groups: dict[str, Callable[[Step], str]] = {"card": lambda step: step.card, "source": lambda step: step.source}
    for what, group in groups.items():
        fits = left_out(all_steps, group)
        errors = [(s, roofline.seconds(s.point.nominal, fits[group(s)]) / s.point.seconds - 1) for s in all_steps]
        print(_summary(f"each {what} left out", [error for _, error in errors]))
        for name in fits:
            print(_summary(f"  {name}", [error for step, error in errors if group(step) == name]))
        for step, error in errors if what == "card" else ():
            print(f"    {step.name}: {100 * error:+.0f} %")


if __name__ == "__main__":
    main()
