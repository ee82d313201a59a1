"""Kills runs of several verbs, and the store, at random moments, and holds what is left against undisturbed runs.

Each run is killed (SIGKILL) and started again until it ends by itself; then its rows must be those of a run that nobody
disturbed: none lost, torn or doubled, the losses of fine-tunes the same to the bit. No process of a killed run may live
two seconds later. tests/helpers/killed.py has the table of the verbs. Exit code 1 where something is wrong.

    python -m bench.kill [--kills 200] [--seed 0] [--only VERB]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import killed  # noqa: E402  # of the tests

WITHIN_S = 2.0  # a worker may live so long after its parent
MARK = "TTFT_BENCH_KILL_RUN"  # in the environment of a run and of all that it starts
LONGEST_S = 300.0


@dataclass
class Tally:
    kills: int = 0
    runs: int = 0  # that ended by themselves, each compared
    slowest_s: float = 0.0  # of a worker's end after its parent's
    wrong: list[str] = field(default_factory=list)


class Killer:
    """Kills runs of one verb. `within_s` is how long a worker may live on."""

    def __init__(self, verb: str, folder: Path, shared: Path, within_s: float = WITHIN_S):
        self.verb, self.folder, self.shared, self.within_s = verb, folder, shared, within_s
        self.tally = Tally()
        # The undisturbed run also says how long the start and the work take.
        began = time.monotonic()
        run = self._start(folder / "undisturbed")
        self._wait_for_work(run)
        self.start_s = time.monotonic() - began
        self._ended_well(run, "undisturbed")
        self.work_s = time.monotonic() - began - self.start_s
        self.expected, wrong = killed.rows_of(verb, folder / "undisturbed")
        assert self.expected and not wrong, wrong

    def kill(self, times: int, rng: random.Random) -> Tally:
        """Kills so many runs, and lets the last one end."""
        wanted = self.tally.kills + times
        while self.tally.kills < wanted:
            folder = self.folder / f"{self.tally.runs}"
            # Until a run ends before it is killed.
            while self.tally.kills < wanted and self._killed(folder, rng):
                pass
            self._finish(folder)
        return self.tally

    def _killed(self, folder: Path, rng: random.Random) -> bool:
        """Starts a run and kills it; False where it ended first."""
        run = self._start(folder)
        # Most kills fall into the work, some into the start.
        if rng.random() < 0.15:
            time.sleep(rng.uniform(0, self.start_s))
        else:
            self._wait_for_work(run)
            time.sleep(rng.uniform(0, 0.8 * self.work_s))
        if run.poll() is not None:
            self._ended_well(run, folder.name)
            return False
        run.send_signal(signal.SIGKILL)
        run.communicate()
        self.tally.kills += 1
        self._wait_for_workers(folder)
        return True

    def _finish(self, folder: Path) -> None:
        """Lets the run end and compares its rows."""
        self._ended_well(self._start(folder), folder.name)
        rows, wrong = killed.rows_of(self.verb, folder)
        wrong += [f"lost: {key}" for key in self.expected if key not in rows]
        wrong += [f"not of this run: {key}" for key in rows if key not in self.expected]
        for key, row in rows.items():
            if key in self.expected and row != self.expected[key]:
                wrong.append(f"differs: {_difference(row, self.expected[key])}")
        self.tally.wrong += [f"{self.verb}: {text}" for text in wrong]
        self.tally.runs += 1

    def _start(self, folder: Path) -> "subprocess.Popen[str]":
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, killed.__file__, self.verb, str(folder), str(self.shared)]
        own = {"TMPDIR": str(self.folder), "TTFT_BENCH_CACHE": str(self.folder / "cache"), MARK: str(folder)}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **own}
        log: IO[str] = (folder / "log").open("a")
        with log:
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def _wait_for_work(self, run: "subprocess.Popen[str]") -> None:
        assert run.stdout
        run.stdout.readline()  # "begin", or nothing where it ended before

    def _ended_well(self, run: "subprocess.Popen[str]", name: str) -> None:
        run.communicate(timeout=LONGEST_S)
        if run.returncode:
            log = (self.folder / name / "log").read_text()
            raise AssertionError(f"{self.verb} ended with code {run.returncode} in {self.folder / name}: {log[-2000:]}")

    def _wait_for_workers(self, folder: Path) -> None:
        died = time.monotonic()
        while left := _marked(folder):
            spent = time.monotonic() - died
            if spent > self.within_s:
                self.tally.wrong.append(
                    f"{self.verb}: {len(left)} processes live {self.within_s:g} s after their parent"
                )
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.02)
        self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - died)


def _marked(folder: Path) -> list[int]:
    """Processes that the run in `folder` left."""
    mark, pids = f"{MARK}={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and mark in path.read_bytes().split(b"\0"):
                pids.append(int(path.parent.name))
        except OSError:  # another user's, or gone
            continue
    return pids


def _difference(row: object, expected: object) -> str:
    names = [name for name, value in vars(row).items() if value != getattr(expected, name)]
    return f"{getattr(row, 'key', '')} in {', '.join(names)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=killed.VERBS)
    options = parser.parse_args()
    verbs = [options.only] if options.only else list(killed.VERBS)
    weights = sum(killed.VERBS[verb].weight for verb in verbs)
    rng, start, done, wrong = random.Random(options.seed), time.monotonic(), 0, []
    with TemporaryDirectory() as folder:
        shared = Path(folder) / "shared"
        killed.share(shared)
        for verb in verbs:
            # The last verb gets what rounding left.
            share = round(options.kills * killed.VERBS[verb].weight / weights)
            times = options.kills - done if verb == verbs[-1] else share
            killer = Killer(verb, Path(folder) / verb, shared)
            while times > 0:
                part = min(times, 10)
                tally, times, done = killer.kill(part, rng), times - part, done + part
                left = (time.monotonic() - start) / done * (options.kills - done)
                print(
                    f"\r{verb}: {done} of {options.kills} kills, about {left / 60:.0f} min left   ", end="", flush=True
                )
            print(f"\r{verb}: {tally.kills} kills, {tally.runs} runs compared, the last worker ended within "
                  f"{tally.slowest_s:.2f} s, {len(tally.wrong)} faults")  # fmt: skip
            wrong += tally.wrong
    for text in wrong:
        print(text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
