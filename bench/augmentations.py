"""Augmentations compared: all arms at equal steps on the same tasks, by the loss per grid and by tasks solved.

Fine-tunes as `ttft` does, into a results folder of its own; an arm that the folder has is not run again, so a run that
was stopped goes on where it was. Every arm is compared with "baseline" and with "+ color swap", task by task: the
difference of the loss by a paired bootstrap over tasks (95 %) and by flipping its signs (p), what is solved by exact
McNemar; Holm's p are over all p of both tables. What another training seed changes is part of them.

    python -m bench.augmentations                             120 generated tasks, one adapter for all
    python -m bench.augmentations --set small --minutes 60    257 ARC tasks, one adapter each; again, to go on
    python -m bench.augmentations --only-table                of what the folder has
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.text import Text

from harness.analysis.comparison import compare, holm_adjusted
from harness.analysis.retraining import Noise, noise_for
from harness.arc.arms import ARMS
from harness.catalog.weights import without_digest
from harness.cli.ttft import configure
from harness.errors import UserError
from harness.records.arm import ROWS, ArmResult, TuneSpec
from harness.records.cell import ModelSpec
from harness.records.store import Store
from harness.report.comparison import comparison_tables
from harness.report.progress import ProgressLine
from harness.report.style import console
from harness.tune import run
from harness.tune.config import TuneConfig

BESIDE = ("baseline", "+ color swap")  # what every arm is compared with
SETTINGS: dict[str, dict[str, Any]] = {
    "generated": {"dataset": "generated", "tasks": 120, "scope": "shared", "steps": 128, "sequences_per_step": 16,
        "lora_targets": "attention", "learning_rate": 1e-3,
    },
    "small": {
        "tasks": 257, "scope": "task", "steps": 24, "sequences_per_step": 4, "lora_targets": "all-linear",
        "learning_rate": 4e-3,
    },
}  # fmt: skip


def table(arms: Sequence[ArmResult], noise: Noise, out: Any) -> None:
    """Prints each arm beside each of BESIDE that is among them; no two arms are compared twice. Raises UserError where
    true outputs were too long to read."""
    for arm in arms:
        if missing := len(arm.scores) - len(arm.nats_by_task()):
            raise UserError(f"{arm.arm}: {missing} tasks over {arm.spec.context} tokens; ask for a longer context")
    made = [
        compare(other, arm, noise)
        for other in arms
        for arm in arms
        if other.arm in BESIDE and arm is not other and (other.arm, arm.arm) != BESIDE[::-1]
    ]
    adjusted = holm_adjusted(made)
    for other in [arm for arm in arms if arm.arm in BESIDE]:
        out.print(Text(f"\nAgainst {other.arm}, {len(other.scores)} tasks:"))
        for shown in comparison_tables([c for c in adjusted if c.first is other]):
            out.print(shown)
            out.print()
    out.print(Text(f"\n{noise.sentence}"))


def recorded(config: TuneConfig) -> list[ArmResult]:
    """The newest row of each of the config's arms in its folder, of its settings. Raises UserError without BESIDE."""
    newest = {
        row.arm: row
        for row in Store(config.results, kind=ROWS).rows().values()
        if row.ok and all(_setting(row.spec, name) == _setting(config, name) for name in _settings(row.arm))
        and list(row.spec.tasks) == [task.id for task in config.tasks]
    }  # fmt: skip
    rows = [newest[arm.name] for arm in config.arms if arm.name in newest]
    if not any(row.arm in BESIDE for row in rows):
        raise UserError(f"{config.results}: no row of {' or '.join(BESIDE)} at these settings yet; run one of them")
    return rows


def _setting(of: TuneSpec | TuneConfig, name: str) -> Any:
    value = getattr(of, name)
    # How a model is fine-tuned by default is no part of it, and rows from before have no digest of a GGUF file.
    if name == "weights":
        return without_digest(value)
    return replace(value, ttft=None) if isinstance(value, ModelSpec) else value


def _settings(arm: str) -> list[str]:
    """Names that specification and config share; what only training needs does not matter for the baseline."""
    training = [] if arm == "baseline" else ["recipe", "steps", "scope"]
    return ["model", "weights", "dataset", "context", "encoding", "views", "seed", "decode", "select", *training]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=SETTINGS, default="generated", help="generated tasks, or small ARC ones")
    parser.add_argument("--model", default="arc-tiny")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--tasks", type=int, help="instead of the set's")
    parser.add_argument("--steps", type=int, help="instead of the set's")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("results/augmentations"))
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many; a later call goes on")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    options = vars(parser.parse_args())
    minutes, only_table, model = options.pop("minutes"), options.pop("only_table"), options.pop("model")
    settings = SETTINGS[options.pop("set")] | {name: value for name, value in options.items() if value is not None}
    out = console()
    try:
        config = configure(model, **settings)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
        try:
            with ProgressLine(out) as progress:
                if not only_table:
                    run.run(config, progress)
        except KeyboardInterrupt:
            out.print(Text("stopped; the same command goes on"))
        signal.setitimer(signal.ITIMER_REAL, 0)
        rows = recorded(config)
        spec = next((row.spec for row in rows if row.steps), rows[0].spec)
        table(rows, noise_for(Store(config.results, kind=ROWS).rows().values(), spec), out)
    except UserError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
