"""Whole runs of `solve` under random kills, of its workers and of itself: in time, valid, and as long as planned?

A run over 40 real ARC tasks, drawn anew for each, with arc-tiny under a short budget; every second run has a second
pass, which goes on until the end. At a random moment its worker or the run itself is killed (SIGKILL), and the run is
started again at once; the plan does not know of that. Then it must have ended
before its deadline, its submission must be valid, and its hours until every task had been tried once are held against
the plan of its first start. A first run, without kills, only shows the record what a task takes.

    python -m bench.solve_runs [--runs 20] [--minutes 5] [--kills 1] [--seed 0] [--threads 1] [--folder FOLDER]

Exit code 1 where a run was late or a submission invalid. With --folder the runs stay, and a call with more --runs goes
on behind them.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from harness.arc import sources
from harness.arc.task import Task, within
from harness.records.stored import from_stored
from harness.solve import submission

TASKS, LARGEST = 40, 10  # tasks per run, and cells a side of their grids
KILL_AT = (0.02, 0.6)  # of the budget: while the first pass is at work
_POLL_S = 0.05


@dataclass(frozen=True)
class Run:
    """What a run came to. Hours until every task had been tried once, planned (with the 95 % interval) and real, None
    where one was not; `left_s` until the deadline when it ended; what it was killed of; and what is wrong."""

    planned: tuple[float, float, float]
    first_pass_h: float | None
    left_s: float
    kills: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def ratio(self) -> float | None:
        """Real over planned hours."""
        return self.first_pass_h / self.planned[1] if self.first_pass_h else None

    @property
    def held(self) -> bool:
        """Whether the interval had it."""
        return self.first_pass_h is not None and self.planned[0] <= self.first_pass_h <= self.planned[2]

    def __str__(self) -> str:
        real = f"{3600 * self.first_pass_h:.0f} s" if self.first_pass_h else "not all tried"
        low, mid, high = (3600 * hours for hours in self.planned)
        return (
            f"planned {mid:.0f} s ({low:.0f} to {high:.0f}), real {real}; {self.left_s:.1f} s before the end; "
            f"kills: {', '.join(self.kills) or 'none'}{''.join(f'; {fault}' for fault in self.faults)}"
        )


def challenges(tasks: Sequence[Task]) -> str:
    """A file as Kaggle's, without solutions."""
    return json.dumps(
        {
            task.id: {
                "train": [{"input": d.input, "output": d.output} for d in task.demonstrations],
                "test": [{"input": grid} for grid in task.test_inputs],
            }
            for task in tasks
        }
    )


def one(folder: Path, tasks: Sequence[Task], options: argparse.Namespace, rng: random.Random) -> Run:
    """A run over `tasks` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file, out = folder / "challenges.json", folder / "submission.json"
    file.write_text(challenges(tasks))
    results = folder.parent / "results"
    before = set((results / "runs").glob("*.json"))
    process, began, killed = _start(folder, results, options), time.monotonic(), []
    moments = sorted(rng.uniform(*KILL_AT) * 60 * options.minutes for _ in range(options.kills))
    while process.poll() is None:
        time.sleep(_POLL_S)
        if moments and time.monotonic() - began > moments[0]:
            moments.pop(0)
            workers = _workers(process.pid)
            if workers and rng.random() < 0.6:
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed.append(f"worker at {time.monotonic() - began:.0f} s")
            else:
                process.kill()
                process.wait()
                killed.append(f"itself at {time.monotonic() - began:.0f} s")
                process = _start(folder, results, options)
    ended = time.time()
    state = json.loads(max(set((results / "runs").glob("*.json")) - before).read_text())
    faults = submission.faults(json.loads(out.read_text()), tasks)
    faults += ["after its deadline"] * (ended > state["end"])
    faults += [f"exit code {process.returncode}"] * bool(process.returncode)
    planned, answered = state["planned"], state["first_pass_h"]
    hours = (planned["hours_low"], planned["hours_mid"], planned["hours_high"])
    return Run(hours, answered, state["end"] - ended, tuple(killed), tuple(faults))


def _start(folder: Path, results: Path, options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "harness", "solve", "arc-tiny", "--tasks", str(folder / "challenges.json"), "--out",
        str(folder / "submission.json"), "--budget-hours", str(options.minutes / 60), "--results", str(results),
        "--steps", str(options.steps), "--views", str(options.views), "--sequences-per-step", "4",
        "--passes", str(options.passes), "--lora-targets", "all-linear", "--learning-rate", "4e-3", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _workers(parent: int) -> list[int]:
    """Processes that `parent` started, and theirs."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [parent]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--kills", type=int, default=1, help="per run")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the runs stay")
    options = parser.parse_args()
    tasks = within(sources.load("arc1-evaluation")[0], LARGEST)
    with TemporaryDirectory() as spare:
        folder = (options.folder or Path(spare)).absolute()
        runs: list[Run] = []
        for number in range(options.runs + 1):
            kept, rng = folder / f"{number}" / "run.json", random.Random(f"{options.seed} {number}")
            if kept.exists():
                run = from_stored(json.loads(kept.read_text()), Run)
            else:
                drawn = rng.sample(tasks, TASKS)
                own = argparse.Namespace(
                    **vars(options) | {"passes": 1 + number % 2} | ({} if number else {"kills": 0})
                )
                run = one(kept.parent, drawn, own, rng)
                kept.write_text(json.dumps(asdict(run)))
            print(f"{number or 'without kills'}: {run}", flush=True)
            runs += [run] if number else []
    ratios = [run.ratio for run in runs if run.ratio]
    off = median(abs(ratio - 1) for ratio in ratios) if ratios else float("nan")
    print(
        f"{len(runs)} runs, {sum(len(run.kills) for run in runs)} kills: {sum(not run.faults for run in runs)} in time "
        f"and valid, {len(ratios)} with all tasks tried; real hours {100 * off:.1f} % from planned in the median, "
        f"the interval held {sum(run.held for run in runs)}"
    )
    sys.exit(any(run.faults for run in runs))


if __name__ == "__main__":
    main()
