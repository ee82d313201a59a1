"""Two Ray nodes on this machine, loopback only, each with a processor and, if wanted, a card that is only a name."""

import logging
import os
import shutil
from contextlib import contextmanager
from tempfile import mkdtemp

from harness.workers.cluster import LOOPBACK

os.environ.update(LOOPBACK)  # before Ray is imported anywhere
STORE = 80 << 20  # bytes: Ray takes no less


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
        kinds = [{"num_gpus": 1, "resources": {f"accelerator_type:{card}": 1}} for card in cards] or [{}, {}]
        yield cluster, [cluster.add_node(num_cpus=1, object_store_memory=STORE, **more) for more in kinds]
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(short, ignore_errors=True)
