"""How wrong are the predictions? Every row of results/reference, predicted without what it says itself.

python -m bench.backtest [--write] [--accept] [--anew]
python -m bench.backtest --rows FILE --models FILE

Measured rows are this project's own, each predicted with its model left out of the calibration; published ones are
others', with their source, each predicted as it was run and with its card left out of the fit. It fails where the mean
error of a class has risen by more than 5 % over the committed figures (results/reference/backtest.json), or where it
is foreseen worse whether a step fits. With --write the table goes to results/reference/backtest.md, the figures to
backtest.json and the calibrations on all rows to harness/assets/calibrations, unless it fails; with --accept in any
case. Traces are kept (bench.kept_traces), so that it takes seconds; --anew makes them again with the libraries of now,
minutes.

--rows predicts another table of published steps instead, with the shapes of its models (columns as in
results/reference/published; those from `adapter` to `program` may be missing), each with its card left out.
"""

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import fit_priors, published_steps, reference_rows
from bench.backtest_tables import by_card, table
from bench.kept_traces import KeptTraces
from bench.published_steps import PublishedStep
from bench.reference_rows import REFERENCE, Row
from harness.catalog import accelerators, efficiency
from harness.catalog.accelerators import CPU
from harness.predict import calibration, prediction
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction
from harness.predict.roofline import GEMM, Trace

CALIBRATIONS = REFERENCE.parents[1] / "harness" / "assets" / "calibrations"
FIGURES = REFERENCE / "backtest.json"
_RISE = 1.05  # of a class's mean error, at most
RIGHT, UNSURE, WRONG = "right", "unsure", "wrong"  # of whether a step fits: the better first
_WORDS = (RIGHT, UNSURE, WRONG)
Figures = dict[str, dict[str, Any]]


def published(kept: KeptTraces, steps: Sequence[PublishedStep] | None = None) -> tuple[list[Row], dict[str, str]]:
    """Seconds and memory of each published step, its card left out of the fit; and whether it was foreseen that it fits
    or does not (right, unsure or wrong), by the names of the rows that tell it."""
    known = published_steps.read()
    traces = published_steps.traces(known, kept)
    fits = fit_priors.left_out(fit_priors.steps(known, traces, kept), lambda step: step.card)
    by_source = _of_assumed_lengths([(step, _predicted(step, traces, fits)) for step in known])
    if steps is None:
        steps = known
    else:
        traces = published_steps.traces(steps, kept)
    rows, foreseen = [], {}
    for step in steps:
        predicted = _predicted(step, traces, fits)
        common = {"name": step.name, "card": step.accelerator.name, "group": step.comparable}
        common["evidence"] = predicted.evidence
        if step.seconds:
            row = Row(
                unit="s",
                real=step.seconds,
                predicted=step.seconds_of(predicted),
                factor=math.exp(1.96 * math.hypot(predicted.log_sigma, lengths_log_sigma(step, by_source))),
                rule=step.rule_seconds(predicted.trace.params),
                **common,
            )
            rows.append(row)
        if step.gib:
            peak, factor = step.gib_of(predicted)
            rows.append(Row(unit="GiB", real=step.gib, predicted=peak, factor=factor, **common))
        if step.out_of_memory is not None:
            foreseen[step.name] = foresight(predicted.fits_memory(), step.out_of_memory)
    return rows, foreseen


def _predicted(step: PublishedStep, traces: Mapping[str, Trace], fits: dict[str, dict[str, float]]) -> Prediction:
    """The row, predicted as its program runs it and with its card left out of the fit."""
    assumed = step.as_run_by(_without(step, fits))
    return prediction.predict_cell(step.request(assumed), {step.context: traces[step.name]})


def _of_assumed_lengths(pairs: Sequence[tuple[PublishedStep, Prediction]]) -> dict[str, float]:
    """By source, the root mean square of the logarithms of real over predicted seconds where lengths are assumed."""
    squares: dict[str, list[float]] = {}
    for step, predicted in pairs:
        if step.lengths_assumed and step.seconds:
            squares.setdefault(step.source, []).append(math.log(step.seconds / step.seconds_of(predicted)) ** 2)
    return {source: math.sqrt(fmean(values)) for source, values in squares.items()}


def lengths_log_sigma(step: PublishedStep, by_source: Mapping[str, float]) -> float:
    """How uncertain seconds are for want of the sequences' lengths: by the errors of all other sources that assume
    them; 0 where the row does not."""
    others = [error for source, error in by_source.items() if source != step.source]
    return math.sqrt(fmean(error**2 for error in others)) if step.lengths_assumed and others else 0.0


def foresight(fits: bool | None, out_of_memory: bool) -> str:
    """How good a prediction that a step `fits` was. One that cannot say is not right, whatever came of it."""
    if fits is None:
        return UNSURE
    return WRONG if fits is out_of_memory else RIGHT


def foresights(foreseen: dict[str, str]) -> str:
    """How many of these were right, left open and wrong, as a sentence."""
    counts = [sum(word == one for word in foreseen.values()) for one in _WORDS]
    right, unsure, wrong = counts
    ends = f"{right} were foreseen, {unsure} left open, {wrong} wrong"
    return f"Whether they fit: of {len(foreseen)} rows that tell it {ends}."


def _without(step: PublishedStep, fits: dict[str, dict[str, float]]) -> Calibration:
    """What is assumed of the row's card by the fit without its rows."""
    accelerator = step.accelerator
    slowdown = fits.get(fit_priors.bare_card(accelerator.name)) or efficiency.SLOWDOWN
    product = slowdown[GEMM] / efficiency.product_share(accelerator)
    assumed = calibration.prior(accelerator.kind, accelerator)
    return calibration.replace(assumed, slowdown={**slowdown, GEMM: product})


def figures(sections: dict[str, list[Row]], foreseen: dict[str, str]) -> Figures:
    """What the gate compares: the mean error of each class, and what was foreseen."""
    classes: dict[str, list[Row]] = {}
    for title, rows in sections.items():
        for row in rows:
            classes.setdefault(f"{title}, {row.group}, {row.unit}", []).append(row)
    errors = {
        name: {"rows": len(rows), "mean_error": round(fmean(abs(row.error) for row in rows), 4)}
        for name, rows in classes.items()
    }
    return {"classes": errors, "foreseen": foreseen}


def failures(now: Figures, committed: Figures) -> list[str]:
    """Why `now` is worse than what is committed; empty where it is not."""
    reasons = []
    for name, before in committed["classes"].items():
        if name not in now["classes"]:
            reasons.append(f"{name}: no longer predicted")
            continue
        mean, old = now["classes"][name]["mean_error"], before["mean_error"]
        if not mean <= _RISE * old + 0.0005:  # no number is no error that is small
            reasons.append(f"{name}: the mean error rose from {100 * old:.1f} to {100 * mean:.1f} %")
        if now["classes"][name]["rows"] < before["rows"]:
            reasons.append(f"{name}: {before['rows'] - now['classes'][name]['rows']} rows are no longer predicted")
    for name, before in committed["foreseen"].items():
        word = now["foreseen"].get(name, WRONG)
        if _WORDS.index(word) > _WORDS.index(before):
            reasons.append(f"{name}: whether it fits was foreseen {before}, and is {word} now")
    return reasons


def run(kept: KeptTraces) -> tuple[list[str], Figures, dict[str, Calibration]]:
    """The table as lines, the gate's figures, and the calibrations on all rows by their names."""
    note = "By `make backtest`. Measured rows and ARC's are predicted with their model left out of the calibration, "
    text = ["# Predictions against measurements", "", f"{note}other published steps with their card left out.", ""]
    sections: dict[str, list[Row]] = {}
    calibrations = {}
    for folder in reference_rows.folders():
        if rows_and_fit := reference_rows.measured(folder, kept):
            rows, fitted = rows_and_fit
            sections[f"Measured: {folder.name}"] = rows
            name = "cpu" if fitted.kind == CPU else accelerators.find(fitted.device).name
            calibrations[name] = fitted
    title = (
        "Published: two T4s of which one works at a time, minutes for ten steps, timed on ten or in the mean of 1000"
    )
    sections[title], calibrations["t4"] = reference_rows.arc24(kept)
    for title, rows in sections.items():
        text += table(title, rows)
    rows, foreseen = published(kept)
    text += by_card(rows)
    text += [foresights(foreseen), ""]
    title = "Published steps, each card left out"
    text += table(title, rows)
    return text, figures(sections | {title: rows}, foreseen), calibrations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--write", "--accept", "--anew"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--models", type=Path, default=published_steps.PUBLISHED / "models.json")
    arguments = parser.parse_args()
    kept = KeptTraces(anew=arguments.anew)
    if arguments.rows:
        rows, foreseen = published(kept, published_steps.of_user(arguments.rows, arguments.models))
        print("\n".join([*by_card(rows), foresights(foreseen), "", *table(str(arguments.rows), rows)]))
        return
    text, now, calibrations = run(kept)
    print(re.sub(r"\n{3,}", "\n\n", "\n".join(text)))
    # Without committed figures there is nothing to hold them against: only --accept goes on.
    reasons = [f"there is no {FIGURES.name} to compare with"]
    if FIGURES.exists():
        reasons = failures(now, json.loads(FIGURES.read_text(encoding="utf-8")))
    if (arguments.write and not reasons) or arguments.accept:
        (REFERENCE / "backtest.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
        FIGURES.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        kept.write()
        CALIBRATIONS.mkdir(exist_ok=True)
        # One that is further off than what is assumed without it serves nobody.
        shipped = {name: each for name, each in calibrations.items() if each.error < efficiency.SPECIFICATION_LOG_SIGMA}
        for name, each in shipped.items():
            calibration.save_calibration(each, CALIBRATIONS / f"{name}.json")
    elif reasons:
        raise SystemExit("\n".join(["worse than the committed figures (--accept writes them all the same):", *reasons]))


if __name__ == "__main__":
    main()
