"""What the tests of the experiment share: a trial of few steps, and an arm that is watched and may be stopped."""

from dataclasses import replace

import torch

from harness.arc import arms
from harness.catalog import models as catalog
from harness.records.arm import ROWS, TuneSpec
from harness.records.cell import Recipe
from harness.records.store import Store
from harness.tune.checkpoint import Checkpointer
from harness.tune.experiment import run
from harness.tune.runner import ArmRunner

STEPS = 8
RECIPE = Recipe(lora_r=4, sequences_per_step=2, learning_rate=1e-2)


def trial_of(folder, puzzles, **changes):
    said = {
        "model": catalog.from_folder(folder),
        "weights": str(folder),
        "precision": "fp32",
        "compute_dtype": "fp32",
        "device": "cpu",
        "device_name": "a CPU",
        "recipe": RECIPE,
        "dataset": "made",
        "tasks": tuple(puzzle.id for puzzle in puzzles),
        "steps": STEPS,
        "context": 512,
        "encoding": "rows",
        "views": 2,
        "seed": 0,
    }
    return TuneSpec(**(said | changes))


def arms_of(trial, puzzles, solutions, folder, names="n-1", on_step=lambda *_: None, **how):
    """The rows of the arms, and what was said."""
    said = []
    store = Store(folder, kind=ROWS)
    return run(trial, puzzles, solutions, arms.choose(names), store, said.append, on_step, **how), said


def timeless(row):
    """A row without what no two runs have in common."""
    return replace(row, started="", train_s=0.0, decode_s=0.0)


class Stopped(Exception):
    pass


def stop_at(number):
    seen = []

    def on_step(arm, step, total, loss):
        seen.append(step)
        if step == number:
            raise Stopped

    return on_step, seen


class Watched:
    """A Subject and its arm, with the adapter's values after every step; `stop` ends it at that one."""

    def __init__(self, trial, puzzles, solutions, path, every_s, stop=None, arm="n-1"):
        self.steps, self.adapters, self.said = [], [], []
        self.subject = ArmRunner(trial, puzzles, {name: solutions[name] for name in trial.tasks})

        def on_step(arm, step, total, loss):
            if step == stop:
                raise Stopped
            self.steps.append(step)
            self.adapters.append(self.subject.adapter.values())

        keeper = Checkpointer(path, self.said.append, every_s=every_s)
        try:
            self.outcome = self.subject.run(arms.ARMS[arm], keeper, on_step)
        except Stopped:
            self.outcome = None

    def same_end(self, other):
        """Whether this one, which began later, did what `other` did from there on, to the bit."""
        count = len(self.steps)
        assert other.steps[-count:] == self.steps
        for mine, theirs in zip(self.adapters, other.adapters[-count:], strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        timeless = {"train_s": 0.0, "decode_s": 0.0}
        assert replace(self.outcome, **timeless) == replace(other.outcome, **timeless)
