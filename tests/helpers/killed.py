"""What the kill suite kills: a run of one verb that goes on where an earlier one of the same folder was killed.

python tests/helpers/killed.py VERB FOLDER SHARED    SHARED is what `share` made: a model with weights, a record

It prints "begin" before the work that is worth a kill. A verb that comes later joins by a row of `VERBS`.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from helpers import solving
from helpers.records import cell, imported_run, result, row
from helpers.sweep import WORLD, Bench, Watch
from helpers.tasks import made_tasks

from harness.records import arm, imported, measurement
from harness.records import solving as solved
from harness.records.store import MEASUREMENTS, Rows, Store

SERVE = "serve"
ROWS, ARMS, STEPS = 150, "baseline, n-1, + geometric", 40
CELLS, ROUNDS = 12, 5


def share(folder: Path) -> None:
    """The model that the fine-tunes load, and a record to compare with."""
    from harness.tiny import model as tiny

    tiny.save(tiny.new(seed=0, hidden=32, layers=2, heads=2), folder / "model")
    for number in range(CELLS):
        Store(folder / "later").add(row((1.5,) * 12, key=f"n{number}", cell=cell(context=100 + number)))


def begin(*_: Any) -> None:
    print("begin", flush=True)


# ---- The verbs


class Sweeping(Watch):
    def begin(self, device_name, cells):
        begin()


def sweep(folder: Path, shared: Path) -> None:
    """Twelve cells that take 50 ms each, by the stand-in of helpers/worker.py."""
    bench = Bench(folder)
    bench.world(WORLD, seconds=0.05)
    bench.run(names=("bf16", "fp32"), contexts=(128, 256, 512), windows=(4096, 8192), watch=Sweeping())


class Tuning:
    """Says when an arm is begun or resumed."""

    def note(self, text):
        if text.startswith("kernels:"):
            begin()

    def step(self, arm, step, total, loss):
        pass

    def answers(self, done, total):
        pass


def tune(folder: Path, shared: Path) -> None:
    """Three arms of a real fine-tune, whose worker keeps a checkpoint of every step."""
    from harness.arc import arms
    from harness.catalog import model_folder
    from harness.records.cell import Recipe
    from harness.tune import run
    from harness.tune.config import TuneConfig
    from harness.workers.local import LocalExecutor

    tasks, solutions = made_tasks(2)
    config = TuneConfig(
        model=model_folder.from_folder(shared / "model"),
        weights=str(shared / "model"),
        recipe=Recipe(lora_r=4, sequences_per_step=2, learning_rate=1e-2, lora_dropout=0.1, kernels="plain"),
        dataset="made",
        tasks=tasks,
        solutions=solutions,
        arms=arms.choose(ARMS),
        steps=STEPS,
        context=512,
        views=2,
        precision="fp32",
        curve=True,
        results=folder / "results",
    )
    run.run(config, Tuning(), LocalExecutor((sys.executable, __file__, SERVE)))


def serve() -> None:
    """As harness.workers.serve; the device is not looked at, and every step is kept."""
    from harness.workers import look, serve

    def job_named(name: str) -> Any:
        if name == look.FIND:
            return lambda payload, emit: WORLD["device"]
        if name == look.REPORT:
            return lambda payload, emit: {name: WORLD[name] for name in ("device", "rates")}
        from harness.tune import checkpoint, experiment

        experiment.Checkpointer = partial(checkpoint.Checkpointer, every_s=0.0)
        return real(name)

    real, serve.job_named = serve.job_named, job_named
    serve.main()


def store(folder: Path, shared: Path) -> None:
    """Appends the rows that are missing, of all kinds in turns."""
    stores = [Store(folder / "results", kind=kind) for kind in (MEASUREMENTS, arm.ROWS, imported.ROWS)]
    for kind in stores:
        kind.repair()
    begin()
    there = set().union(*(kind.rows() for kind in stores))
    for number in range(ROWS):
        rows = (row(key=f"m{number}"), replace(result(2), key=f"a{number}"), imported_run(key=f"i{number}"))
        for kind, made in zip(stores, rows, strict=True):
            if made.key not in there:
                kind.add(made)


def compare(folder: Path, shared: Path) -> None:
    """Compares two records again and again into one CSV and one page, which a kill leaves whole or not there at all."""
    from harness.cli import app

    there = Store(folder / "results").rows()
    for number in range(CELLS):
        made = row(key=f"m{number}", cell=cell(context=100 + number))
        if made.key not in there:
            Store(folder / "results").add(made)
    files = [folder / "changes.csv", folder / "changes.html"]
    left = {path: path.read_bytes() for path in files if path.exists()}
    begin()
    for _ in range(ROUNDS):
        words = [
            "compare",
            str(folder / "results"),
            str(shared / "later"),
            "--csv",
            str(files[0]),
            "--html",
            str(files[1]),
        ]
        try:
            app.main(words)
        except SystemExit as end:
            assert not end.code
        for path, content in left.items():
            assert path.read_bytes() == content, f"{path.name} was torn"
        left = {path: path.read_bytes() for path in files}


class Solving(solving.Watch):
    def note(self, text):
        if "tasks:" in text or text.startswith("going on"):
            begin()


def solve(folder: Path, shared: Path) -> None:
    """Twelve tasks that take 50 ms each, by the stand-in of helpers/worker.py, with scores; the submission must have
    the likelier grid of all of them."""
    run = solving.Solve(folder, shared / "model", count=12)
    run.world(seconds=0.05, answers={"votes": [[["000", 2], ["111", 1]]], "scores": [[-9.0, -2.0]]})
    run.run(Solving(), budget_s=3600, decode="dfs", select="score")
    assert run.answered() == {task.id for task in run.tasks}
    chosen = json.loads(run.out.read_text()).values()
    assert all(answer["attempt_1"] == [[1, 1, 1]] for answers in chosen for answer in answers)


# ---- What must be the same after kills


def same_measurement(raw: dict[str, Any]) -> Any:
    """A row of the stand-in without what no two runs have in common."""
    return replace(measurement.from_json(raw), started="", wall_s=None, load_s=None, estimate_s=None)


def same_arm(raw: dict[str, Any]) -> Any:
    return replace(arm.from_json(raw), started="", train_s=0.0, decode_s=0.0, cores_taken=None)


def same_solved(raw: dict[str, Any]) -> Any:
    """What is expected of a task depends on those before it."""
    seconds = ("train_s", "decode_s", "score_s", "nominal_train_s", "nominal_answer_s", "expected_s", "cap_s", "load_s")
    return replace(solved.from_json(raw), started="", **dict.fromkeys(seconds, 0.0))


@dataclass(frozen=True)
class Verb:
    """`run` does the work in (folder, shared); its rows are in folder/results and `weight` is its share of kills."""

    run: Callable[[Path, Path], None]
    rows: dict[Rows, Callable[[dict[str, Any]], Any]]
    weight: int


VERBS = {
    "sweep": Verb(sweep, {MEASUREMENTS: same_measurement}, 3),
    "store": Verb(store, {MEASUREMENTS: same_measurement, arm.ROWS: same_arm, imported.ROWS: imported.from_json}, 3),
    "compare": Verb(compare, {MEASUREMENTS: same_measurement}, 1),
    "solve": Verb(solve, {solved.ROWS: same_solved}, 2),
    "tune": Verb(tune, {arm.ROWS: same_arm}, 2),
}


def rows_of(verb: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The rows of a finished run by key, and what is wrong with them: lines that are torn, keys that are doubled."""
    rows: dict[str, Any] = {}
    wrong: list[str] = []
    for kind, comparable in VERBS[verb].rows.items():
        for line in (folder / "results" / kind.name).read_bytes().splitlines():
            try:
                raw = json.loads(line)
                made = comparable(raw)
            except ValueError:
                wrong.append(f"a torn line in {kind.name}: {line[-60:]!r}")
                continue
            if made.key in rows:
                wrong.append(f"{kind.name} has {made.key} twice")
            rows[made.key] = made
        if (folder / "results" / kind.aside).exists():
            wrong.append(f"lines were torn: {kind.aside}")
    wrong += [f"left behind: {path.name}" for path in (folder / "results").glob("checkpoints/*")]
    return rows, wrong


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        serve()
    else:
        name, *folders = sys.argv[1:]
        VERBS[name].run(*map(Path, folders))
