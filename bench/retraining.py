"""What another training seed changes: the same fine-tune of the same tasks, ten times.

Rows go into a results folder of their own; what it has is not run again, so a run that was stopped goes on. The figures
at the end are those of harness.analysis.retraining.

    python -m bench.retraining                  one adapter for the 120 generated tasks, 128 steps
    python -m bench.retraining --set small      one adapter for each of the 20 tasks of `ttft arc-tiny`
    python -m bench.retraining --only-table     of what the folder has
    python -m bench.retraining --only-table --write    and the figures per task into results/reference/retraining
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.text import Text

from bench.augmentations import SETTINGS
from harness.analysis.retraining import pooled, repeats
from harness.cli.ttft import configure
from harness.errors import UserError
from harness.records.arm import ROWS
from harness.records.store import Store
from harness.report.progress import ProgressLine
from harness.report.style import console, plain_table
from harness.tune import run

FILE = Path("results/reference/retraining/seeds.jsonl")
SETS: dict[str, dict[str, Any]] = {
    "generated": {**SETTINGS["generated"], "views": 2, "arms": "+ color swap"},
    "small": {**SETTINGS["small"], "tasks": 20, "views": 4, "arms": "+ color swap"},
}


def table(folder: Path, out: Any) -> None:
    """Prints one row per arm and scope of the record in `folder`, and what is common to all tasks."""
    shown = plain_table("<scope|<arm|seeds|tasks|solved\n%|sd|common\nsd|nats/\ngrid|sd|common\n%")
    groups = repeats(Store(folder, kind=ROWS).rows().values())
    for group in groups:
        accuracies = [100 * row.mean("attempts") for row in group]
        nats = [row.grid_nll or 0.0 for row in group]
        noise = pooled([group])
        first = group[0]
        shown.add_row(
            first.spec.scope,
            first.arm,
            str(len(group)),
            str(len(first.spec.tasks)),
            f"{fmean(accuracies):.1f}",
            f"{stdev(accuracies):.1f}",
            f"{100 * noise.accuracy:.1f}",
            f"{fmean(nats):.2f}",
            f"{stdev(nats):.2f}",
            f"{100 * noise.nats:.1f}",
        )
    out.print(shown)
    for scope in sorted({group[0].spec.scope for group in groups}):
        noise = pooled([group for group in groups if group[0].spec.scope == scope])
        out.print(Text(f"{scope}: common to all tasks {noise.accuracy:.4f} of accuracy, {noise.nats:.4f} of nats"))


def write(folder: Path, path: Path) -> None:
    """The repeats of the record in `folder` as JSON: what was solved and nats per grid, by task."""
    rows = [row for group in repeats(Store(folder, kind=ROWS).rows().values()) for row in group]
    lines = [
        {
            "scope": row.spec.scope, "arm": row.arm, "seed": row.spec.seed, "set": row.spec.dataset,
            "steps": row.steps, "solved": row.by_task,
            "nats": {name: round(nats, 4) for name, nats in row.nats_by_task().items()},
        }
        for row in sorted(rows, key=lambda row: (row.spec.scope, row.arm, row.spec.seed))
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path) -> dict[str, list[list[tuple[list[float], dict[str, float]]]]]:
    """By scope: groups of repeats as harness.analysis.retraining.noise_of takes them."""
    groups: dict[str, dict[str, list[tuple[list[float], dict[str, float]]]]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        arms = groups.setdefault(line["scope"], {})
        arms.setdefault(line["arm"], []).append((line["solved"], line["nats"]))
    return {scope: list(arms.values()) for scope, arms in groups.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=SETS, default="generated")
    parser.add_argument("--model", default="arc-tiny")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("results/retraining"))
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help=f"write {FILE} too")
    options = parser.parse_args()
    out = console()
    try:
        config = configure(options.model, **SETS[options.set], results=options.results)
        with ProgressLine(out) as progress:
            for seed in range(0 if options.only_table else options.seeds):
                progress.note(f"seed {seed}")
                # The tasks stay those of the first seed.
                run.run(replace(config, seed=seed), progress)
        table(options.results, out)
        if options.write:
            write(options.results, FILE)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    except UserError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
