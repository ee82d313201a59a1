"""Two Ray nodes on this machine, loopback only, each with a processor and, if wanted, a card that is only a name; and
the command line with the stand-in for workers on them."""

import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from helpers.worker import NODE

from harness.workers.cluster import LOOPBACK

os.environ.update(LOOPBACK)  # before Ray is imported anywhere
CLI = str(Path(__file__).parent / "cli.py")
MARK = "TTFT_BENCH_RAY_RUN"  # a variable of all processes that run_cli begins
SWEEP = ["bench", "qwen-0.5b", "smollm2-135m", "--precisions", "fp32 bf16", "--contexts", "256 512", "--no-accuracy",
         "--device", "cpu", "--results", "rows"]  # fmt: skip
STORE = 80 << 20  # bytes: Ray takes no less


def add_node(cluster, card=""):
    """A node with a processor and, if it is named, a card; its jobs find the name in the variable NODE."""
    more = {"num_gpus": 1, "resources": {f"accelerator_type:{card}": 1}, "env_vars": {NODE: card}} if card else {}
    return cluster.add_node(num_cpus=1, object_store_memory=STORE, **more)


@contextmanager
def two_nodes(cards=()):
    """(cluster, nodes): a head that has nothing to give, and two nodes with a processor each; with `cards` one node per
    card of that type."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    # A path of a socket has at most 107 letters.
    short = mkdtemp(prefix="r", dir="/tmp")
    os.environ["RAY_TMPDIR"] = short
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
    )
    try:
        yield cluster, [add_node(cluster, card) for card in cards or ("", "")]
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(short, ignore_errors=True)


def marked(mark):
    """Processes with the variable `mark` set to 1, by number."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"{mark}=1".encode() in path.read_bytes().split(b"\0"):
                pids.append(int(path.parent.name))
        except OSError:  # another user's, or gone
            continue
    return pids


def environment(tmp_path):
    # Ray finds the test's own short folder by the cluster's address alone.
    return {**os.environ, MARK: "1", "TTFT_BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "160"}


def run_cli(world, *words, cwd, **more):
    return subprocess.run(
        [sys.executable, CLI, str(world), *words], cwd=cwd, env=environment(cwd) | more, capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip
