"""A run over made tasks whose workers are helpers/worker.py, and an observer that keeps what it is told."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from helpers.records import RECIPE
from helpers.sweep import WORKER, WORLD
from helpers.tasks import made_tasks

from harness.arc import arms
from harness.catalog import model_folder
from harness.records import solving
from harness.records.store import Store
from harness.solve import run, submission
from harness.solve.config import SolveConfig
from harness.tune.config import TuneConfig
from harness.workers.local import LocalExecutor


class Watch:
    def __init__(self):
        self.notes, self.counts, self.seen = [], [], []

    def note(self, text):
        self.notes.append(text)

    def count(self, verb, done, total):
        self.counts.append((verb, done, total))

    def progress(self, progress):
        self.seen.append(progress)


class Solve:
    """A folder with a world in it; `run` answers `count` made tasks there."""

    def __init__(self, folder: Path, model: Path, count: int = 6):
        self.folder, self.file, self.out = folder, folder / "world.json", folder / "submission.json"
        self.model, self.results = model, folder / "results"
        self.tasks, self.solutions = made_tasks(count)
        self.fleet = None  # a cluster to run on
        self.world()

    def world(self, **changes):
        self.file.write_text(json.dumps(WORLD | changes))

    def config(self, *, budget_s=60.0, workers=1, passes=1, steps=4, views=2, **more) -> SolveConfig:
        tune = TuneConfig(
            model=model_folder.from_folder(self.model),
            weights=str(self.model),
            recipe=RECIPE,
            dataset="made",
            tasks=self.tasks,
            solutions=self.solutions,
            arms=arms.choose("n-1"),
            steps=steps,
            context=512,
            views=views,
            precision="fp32",
            scope="task",
            decode=more.pop("decode", "greedy"),
            select=more.pop("select", "vote"),
            results=self.results,
            fresh=more.pop("fresh", False),
        )
        return SolveConfig(tune=tune, out=self.out, budget_s=budget_s, workers=workers, passes=passes, **more)

    def run(self, watch=None, **settings):
        self.watch = watch or Watch()
        return run.run(self.config(**settings), self.watch, LocalExecutor(self.command), self.fleet)

    @property
    def command(self):
        """The stand-in, in this folder's world."""
        return sys.executable, WORKER, str(self.file)

    @property
    def log(self) -> list[str]:
        """A line per attempt that was begun: the task and the attempt."""
        log = self.file.with_suffix(".log")
        return log.read_text().splitlines() if log.exists() else []

    @property
    def rows(self) -> list[solving.SolvedTask]:
        return list(Store(self.results, kind=solving.ROWS).rows().values())

    def answered(self) -> set[str]:
        """The tasks with an answer in the submission, which must be valid."""
        raw = json.loads(self.out.read_text())
        assert submission.faults(raw, self.tasks) == []
        return {name for name, answers in raw.items() if any(a["attempt_1"] != submission.UNANSWERED for a in answers)}


def row_of(task="t0", attempt=1, votes=((("00", 2), ("11", 1)),), views=3, **changes) -> solving.SolvedTask:
    made = solving.SolvedTask(
        key=solving.key_of("run", task, attempt),
        run="run",
        setting="setting",
        task=task,
        attempt=attempt,
        device="cpu 0",
        started="2026-11-26T00:00:00+00:00",
        votes=votes,
        views=views,
        train_s=2.0,
        decode_s=1.0,
        nominal_train_s=1.0,
        nominal_answer_s=1.0,
    )
    return replace(made, **changes)
