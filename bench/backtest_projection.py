"""Is the projection true? 200 real optimiser steps of a small model against the interval from its first 20 seconds.

python -m bench.backtest_projection [--steps 200] [--seconds 20] [--repeat 3]

The steps are the harness's own (16 sequences each, the update too), run to the end. The samples of the first seconds
become a row as a sweep would store it; what they project for the rest of the run is compared with what it took.
"""

import argparse
import time
from dataclasses import replace
from statistics import stdev

import torch

from bench.bench_overhead import SMALL
from harness.analysis.projection import project
from harness.catalog.precisions import find
from harness.records.cell import Cell, ModelSpec, Recipe
from harness.records.measurement import Measurement
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.step import TrainingStep

CONTEXT = 128


def run(steps: int, seconds: float) -> tuple[Measurement, float]:
    """A row of the first `seconds` of samples, and the seconds that `steps` steps really took, load left out."""
    device, recipe = torch.device("cpu"), Recipe()
    spec = ModelSpec("small", SMALL, 512)
    loaded = models.load(spec, find("fp32"), "fp32", recipe, "random", device)
    step = TrainingStep(loaded.model, recipe, "fp32", device)
    batch = random_batch(512, CONTEXT, recipe, device, seed=0)
    micro, update = [], []
    begun = time.perf_counter()
    for _ in range(steps):
        for _ in range(recipe.micro_steps_per_step):
            start = time.perf_counter()
            step.micro_step(batch)
            micro.append((time.perf_counter() - start, start - begun))
        start = time.perf_counter()
        step.update()
        update.append((time.perf_counter() - start, start - begun))
    took = time.perf_counter() - begun
    early = [s for s, at in micro if at <= seconds]
    row = Measurement(
        "backtest",
        Cell(spec, "fp32", "fp32", CONTEXT, recipe, "random", "cpu", "this CPU"),
        "ok",
        load_s=0.0,
        warmup_micro_s=(early[0],),
        warmup_optimizer_s=(update[0][0],),
        micro_s=tuple(early[1:]),
        optimizer_s=tuple(s for s, at in update[1:] if at <= seconds) or (update[1][0],),
    )
    return row, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    ratios, inside = [], 0
    for number in range(asked.repeat):
        row, took = run(asked.steps, asked.seconds)
        p = project(replace(row), asked.steps)
        low, mid, high = (3600 * h for h in (p.hours_low, p.hours_mid, p.hours_high))
        ratios.append(took / mid)
        inside += low <= took <= high
        where = "in" if low <= took <= high else "OUT"
        print(
            f"run {number + 1}: {asked.steps} steps took {took:.1f} s; projected {mid:.1f} ({low:.1f} to {high:.1f}) "
            f"from {len(row.micro_s)} samples: {100 * (took / mid - 1):+.1f} %, {where}",
            flush=True,
        )
    spread = f", standard deviation {100 * stdev(ratios):.1f} %" if len(ratios) > 1 else ""
    print(f"{inside} of {asked.repeat} inside the interval{spread}")


if __name__ == "__main__":
    main()
