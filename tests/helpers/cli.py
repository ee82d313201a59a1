"""The command line with the stand-in for workers, here and on a cluster: python tests/helpers/cli.py WORLD WORD..."""

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from helpers.sweep import WORKER  # noqa: E402

import harness  # noqa: E402
from harness.cli import app, parse  # noqa: E402
from harness.workers.local import LocalExecutor  # noqa: E402

VERSION = "TTFT_BENCH_TEST_VERSION"  # of this program here, while machines of the cluster have the real one
RAY_VERSION = "TTFT_BENCH_TEST_RAY_VERSION"  # of Ray, likewise


def main(world, *words):
    harness.__version__ = os.environ.get(VERSION, harness.__version__)
    if version := os.environ.get(RAY_VERSION):
        import ray

        ray.__version__ = version
    command = (sys.executable, WORKER, world)
    # Verbs take the executors that there are by default.
    LocalExecutor.__init__.__defaults__ = (command, *LocalExecutor.__init__.__defaults__[1:])
    real = parse.fleet_of

    def fleet_of(*choice):
        fleet = real(*choice)
        return fleet and replace(fleet, command=command)

    parse.fleet_of = fleet_of
    app.main(list(words))


if __name__ == "__main__":
    main(*sys.argv[1:])
