"""What Ray costs per cell, and how a sweep's time falls with workers: cells of the tests' stand-in.

Every cell is a fresh process that sleeps, so that workers do not need this machine's cores. Local workers are executors
side by side as for cards, Ray's have a processor each of a local Ray, whose own processes start with two cells per
worker that come first.

    python -m bench.bench_cluster [--cells 200] [--seconds 0.1] [--workers 1,2,4]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.records import cell  # of the tests
from helpers.sweep import WORKER, WORLD

from harness.measure.sweep import CELL
from harness.records.stored import to_stored
from harness.workers import cluster
from harness.workers.cluster import Kind
from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.ray import RayExecutor
from harness.workers.spread import spread


def seconds_of(executors: Sequence[Any], cells: int, folder: Path) -> float:
    """Seconds of so many cells over the executors."""

    def one(number: int, executor: Any) -> None:
        payload = {"cell": to_stored(cell()), "sample_seconds": 1.0}
        outcome = executor.run(CELL, payload, RunLimits(log=folder / f"{number}.log"))
        if outcome.status != "ok":
            raise RuntimeError(f"cell {number}: {outcome.reason}")

    began = time.perf_counter()
    spread(range(cells), executors, one)
    return time.perf_counter() - began


def local_ray(workers: int) -> tuple[Any, float]:
    """A Ray of this machine with so many processors, and the seconds of its start, as --ray starts it."""
    began = time.perf_counter()
    ray = cluster.connect(cluster.LOCAL, workers)
    return ray, time.perf_counter() - began


def compare(cells: int, seconds: float, counts: Sequence[int], show: Callable[[str], None]) -> None:
    """Prints a row per number of workers."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        world = folder / "world.json"
        world.write_text(json.dumps({**WORLD, "seconds": seconds}))
        command = (sys.executable, WORKER, str(world))
        first: dict[str, float] = {}
        show(
            f"{cells} cells of {seconds} s\n"
            "workers  local s  of one  Ray s  of one  Ray's overhead per cell  start of Ray"
        )
        for workers in counts:
            here = seconds_of([LocalExecutor(command) for _ in range(workers)], cells, folder)
            ray, start_s = local_ray(workers)
            executor = RayExecutor(ray, Kind(cluster.CPU, workers, 1), command)
            seconds_of([executor] * workers, 2 * workers, folder)
            there = seconds_of([executor] * workers, cells, folder)
            cluster.disconnect()
            shares = [took / first.setdefault(door, took) for door, took in (("local", here), ("ray", there))]
            overhead_s = (there - here) * workers / cells
            show(
                f"{workers:7}  {here:7.1f}  {shares[0]:5.0%}  {there:5.1f}  {shares[1]:5.0%}  {overhead_s:21.3f} s"
                f"  {start_s:10.1f} s"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--workers", default="1,2,4")
    given = parser.parse_args()
    compare(given.cells, given.seconds, [int(word) for word in given.workers.split(",")], print)
