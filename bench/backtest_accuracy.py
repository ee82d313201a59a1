"""Are projected accuracies true? Whole curves of arc-tiny against the intervals from their beginnings.

One adapter for all tasks is trained and evaluated after 2, 4, 8 ... steps up to the end: two sets of tasks, two arms
and three seeds, twelve curves. Every beginning of four checkpoints or more is projected to every later one that is at
most eight times as far, and the interval is compared with what was measured there. A curve is a line of FILE; a run
that was stopped goes on with the next one.

    python -m bench.backtest_accuracy               the curves that FILE lacks, then the table
    python -m bench.backtest_accuracy --only-table  of the curves that it has
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from harness.analysis.learning_curve import MAX_REACH, MIN_CHECKPOINTS, accuracy_after
from harness.analysis.retraining import RECORDED
from harness.records.arm import SHARED, CurvePoint
from harness.report.style import console, plain_table

FILE = Path("results/reference/projected-accuracy/curves.jsonl")
SETS = {"generated": {"set": "generated"}, "small": {}}  # the second: what models.yaml says for arc-tiny
ARMS = ("+ color swap", "n-1")
TRAINING = {"scope": SHARED, "learning_rate": 1e-3, "sequences_per_step": 16, "lora_targets": "attention", "views": 2}


@dataclass(frozen=True)
class Curve:
    """The measured accuracies of one training, the last point at its end."""

    set: str
    arm: str
    seed: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Projection:
    """From a beginning of a curve to a later point of it; `truth` is what was measured there. All are shares."""

    curve: Curve
    start: CurvePoint  # the last of the beginning
    reach: float
    low: float
    mid: float
    high: float
    truth: float
    refused: str

    @property
    def held(self) -> bool:
        return self.low <= self.truth <= self.high


def measure(name: str, arm: str, seed: int, tasks: int, steps: int) -> Curve:
    """Trains arc-tiny for `steps` and evaluates it at every power of two from 2 on, and at the end."""
    import torch

    from harness.arc.dataset import Questions, TrainingSequences, cannot_be_grid, solved_sequences
    from harness.arc.prompt import PromptFormat
    from harness.arc.score import score
    from harness.catalog import models as catalog_of
    from harness.catalog import weights
    from harness.catalog.precisions import DTYPES, find, native_dtype
    from harness.catalog.recipes import RecipeOptions, resolve
    from harness.hardware.probe import rates
    from harness.records.arm import mean_loss
    from harness.train import model as models
    from harness.train.packing import Packing, PackSetting, default_tokens_at_once
    from harness.train.step import TrainingStep
    from harness.tune import decode, finetune
    from harness.tune.config import TuneConfig, settings_for

    catalog = catalog_of.load()
    spec = catalog.find("arc-tiny")
    settings = settings_for(catalog, spec).override(tasks=tasks, steps=steps, **SETS[name], **TRAINING)
    recipe = resolve(catalog.recipe, RecipeOptions(**settings.of_recipe))
    # Every seed has the tasks of the first.
    config = TuneConfig.of(spec, weights.resolve(spec, "auto"), settings, arms=arm, recipe=recipe)
    device = torch.device("cpu")
    dtype = native_dtype(rates(device, DTYPES))
    loaded = models.load(spec, find(dtype), dtype, recipe, config.weights, device, seed)
    tokenizer = models.load_tokenizer(config.weights)
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=config.context)
    questions = Questions(config.tasks, prompts, config.views, seed)
    truths = {task.id: config.solutions[task.id] for task in config.tasks}
    sequences = solved_sequences(config.tasks, truths, prompts)
    wanted = {steps, *(2**i for i in range(1, steps.bit_length()) if 2**i <= steps)}
    points: list[CurvePoint] = []
    begun = time.monotonic()

    def on_step(step: int, loss: float, state: Any) -> None:
        if step in wanted:
            texts = decode.greedy(
                loaded.model, tokenizer, questions.prompts, questions.max_new_tokens, hopeless=cannot_be_grid
            )
            scores = tuple(each.attempts for each in score(questions.answers(texts), truths))
            points.append(CurvePoint(step, mean_loss(decode.losses(loaded.model, sequences)), scores))
            print(f"  step {step}: {100 * fmean(scores):.1f} %, {time.monotonic() - begun:.0f} s", flush=True)

    finetune.tune(
        TrainingStep(loaded.model, recipe, dtype, device),
        TrainingSequences(config.arms[0].stream(config.tasks, seed), prompts),
        steps,
        on_step=on_step,
        packing=Packing(loaded.model, PackSetting(max(config.context, default_tokens_at_once(loaded.model)))),
    )
    return Curve(name, arm, seed, tuple(points))


def projections(curve: Curve) -> Iterator[Projection]:
    """Every beginning of the curve against every later point within reach."""
    for last, end in product(range(MIN_CHECKPOINTS - 1, len(curve.points)), range(len(curve.points))):
        point = curve.points[end]
        if end <= last or point.steps > MAX_REACH * curve.points[last].steps:
            continue
        made = accuracy_after(curve.points[: last + 1], point.steps, RECORDED[SHARED][0])
        yield Projection(
            curve, curve.points[last], made.reach, made.low, made.mid, made.high, fmean(point.scores), made.refused
        )


def read(path: Path) -> list[Curve]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        Curve(raw["set"], raw["arm"], raw["seed"], tuple(CurvePoint(s, loss, tuple(x)) for s, loss, x in raw["points"]))
        for raw in map(json.loads, lines)
    ]


def write(curve: Curve, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [[point.steps, point.loss, point.scores] for point in curve.points]
    with path.open("a") as file:
        file.write(json.dumps({"set": curve.set, "arm": curve.arm, "seed": curve.seed, "points": points}) + "\n")


def table(curves: Sequence[Curve], out: Any) -> None:
    """Prints what was projected beside what was measured at eight times the beginning, then how many intervals held."""
    made = [projection for curve in curves for projection in projections(curve)]
    shown = plain_table("<set|<arm|seed|tasks|from\n%|projected\n%|95 %|measured\n%|held")
    farthest = max((p.reach for p in made), default=MAX_REACH)
    for p in (p for p in made if p.reach == farthest):
        start = [p.curve.set, p.curve.arm, str(p.curve.seed), str(len(p.curve.points[0].scores))]
        if p.refused:
            shown.add_row(*start, f"{100 * fmean(p.start.scores):.1f}", "refused", "-", f"{100 * p.truth:.1f}", "-")
            continue
        span = f"{100 * p.low:.0f} to {100 * p.high:.0f}"
        shown.add_row(
            *start, f"{100 * fmean(p.start.scores):.1f}", f"{100 * p.mid:.1f}", span, f"{100 * p.truth:.1f}",
            "yes" if p.held else "NO",
        )  # fmt: skip
    out.print(shown)
    summary = plain_table("reach|projections|refused|held\n%|width\npoints|needed\npoints|error\npoints")
    for reach in (*sorted({p.reach for p in made}), None):
        own = [p for p in made if reach in (None, p.reach)]
        tried = [p for p in own if not p.refused]
        if not tried:
            continue
        errors = [abs(p.truth - p.mid) for p in tried]
        # Twice the error that 95 % stay below is the width that an interval around the middle needs.
        needed = 2 * quantiles(errors, n=20, method="inclusive")[-1] if len(errors) > 1 else 2 * errors[0]
        summary.add_row(
            "all" if reach is None else f"x{reach:g}", str(len(own)), str(len(own) - len(tried)),
            f"{100 * fmean(p.held for p in tried):.1f}", f"{100 * fmean(p.high - p.low for p in tried):.0f}",
            f"{100 * needed:.0f}", f"{100 * fmean(errors):.1f}",
        )  # fmt: skip
    out.print()
    out.print(summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS), dest="sets")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    options = parser.parse_args()
    have = {(curve.set, curve.arm, curve.seed) for curve in read(options.out)}
    for seed, name, arm in product(() if options.only_table else options.seeds, options.sets, ARMS):
        if (name, arm, seed) not in have:
            print(f"{name}, {arm}, seed {seed}", flush=True)
            write(measure(name, arm, seed, options.tasks, options.steps), options.out)
    table(read(options.out), console())


if __name__ == "__main__":
    main()
