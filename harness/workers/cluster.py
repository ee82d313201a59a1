"""The Ray cluster that jobs go to: reach it or start a local one, and say which cards it has.

Ray is imported by `connect` and not before: without --ray nothing of it is needed, and nothing is slower.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, first_line

LOCAL = "local"
_WITHIN_S = 5.0  # an address must answer
_LOOK_AGAIN_S = 5.0  # at the machines that there are
_STORE_BYTES = 128 << 20  # of a local Ray: what passes between processes is small
_PREFIX = "accelerator_type:"
CPU = "cpu"
# By it Ray listens on the loopback interface alone, on Linux too: nobody else may reach a cluster of this machine.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Kind:
    """What the cluster has of one kind of device: `name` as Ray names the card, or "cpu" for whole machines.

    `count` cells run at once; `cores` of a machine are taken by each where there is no card.
    """

    name: str
    count: int
    cores: int = 0

    def is_on(self, resources: Mapping[str, float], processes: int = 1) -> bool:
        """Whether a machine with these of Ray's resources can ever run such a job."""
        if self.name == CPU:
            return resources.get("CPU", 0) >= self.cores
        return resources.get("GPU", 0) >= processes and (not self.name or _PREFIX + self.name in resources)

    def options(self, processes: int) -> dict[str, Any]:
        """Ray's options for a job of so many processes, a card each."""
        if self.name == CPU:
            return {"num_cpus": self.cores}
        # A card named by no type of Ray's is asked for by number alone.
        named = {"accelerator_type": self.name} if self.name else {}
        return {"num_gpus": processes, "num_cpus": 0, **named}


def connect(address: str | None, processors: int | None = None) -> Any:
    """Ray, connected to the cluster at `address`, or for LOCAL or None to a new one on this machine, which has
    `processors` to give, by default all.

    Raises UserError where Ray is missing, or the cluster does not answer or has another version.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Jobs on a CPU must not see cards that Ray has not given them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    local = address in (None, LOCAL)
    if local:
        os.environ.update(LOOPBACK)
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray, which is not installed: pip install 'ttft-bench[ray]'") from None
    if ray.is_initialized():
        return ray
    if not local:
        _must_answer(str(address))
    settings: dict[str, Any] = {}
    if local:
        settings = {"object_store_memory": _STORE_BYTES, "include_dashboard": False, "num_cpus": processors}
    # The package goes to the workers with the job, so that no disk must be shared.
    package = {"py_modules": [str(Path(__file__).parents[1])], "excludes": ["**/__pycache__/"]}
    try:
        ray.init(
            address=LOCAL if local else address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=package,
            **settings,
        )
    except Exception as problem:  # Ray's own errors have no common class
        where = "a local Ray cannot be started" if local else f"{address}: Ray cannot be reached"
        raise UserError(f"{where}: {' '.join(str(problem).split())[:300]}") from None
    return ray


def _must_answer(address: str) -> None:
    """Raises UserError at once where Ray would wait for a minute."""
    if "://" in address:
        raise UserError(
            f"--ray {address}: name the cluster's own address, as in 10.0.0.1:6379, from one of its machines; "
            "from elsewhere: ray job submit -- python -m harness ... --ray auto"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--ray {address[:80]}: an address is HOST:PORT, auto, or nothing for a local Ray")
    try:
        socket.create_connection((host, int(port)), timeout=_WITHIN_S).close()
    except (OSError, OverflowError) as problem:
        raise UserError(f"--ray {address}: does not answer ({first_line(problem)}); is the cluster up?") from None


def kinds(ray: Any, requested: Sequence[str], device: str) -> list[Kind]:
    """The kinds of card to use: those of `requested` ("t4", "l4"), by default all; or "cpu" for `device` "cpu".

    Raises UserError where the cluster has none of them: Ray would wait for ever.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == CPU:
        if requested:
            raise UserError("--on chooses cards; it does not go with --device cpu")
        # One cell per machine, with as many cores as the smallest has.
        cores = [int(resources["CPU"]) for resources in alive if resources.get("CPU", 0) >= 1]
        if not cores:
            raise UserError("the Ray cluster has no CPU to give")
        return [Kind(CPU, len(cores), min(cores))]
    counts: dict[str, int] = {}
    for resources in alive:
        if cards := int(resources.get("GPU", 0)):
            name = next((r.removeprefix(_PREFIX) for r in resources if r.startswith(_PREFIX)), "")
            counts[name] = counts.get(name, 0) + cards
    if not counts:
        raise UserError("the Ray cluster has no cards; --device cpu uses its machines' processors")
    chosen = {}
    for word in requested:
        names = [name for name in counts if name.lower().replace("-", "") == word.lower().replace("-", "")]
        if not names:
            present = ", ".join(sorted(name or "cards without a type" for name in counts))
            raise UserError(f"--on {word[:40]}: the Ray cluster has none; it has {present}")
        chosen[names[0]] = counts[names[0]]
    return [Kind(name, count) for name, count in sorted((chosen or counts).items())]


class Gone(UserError):
    """No machine of the cluster can run the job any more."""


class Machines:
    """Looks now and then whether a job that waits for its machine can still get one: Ray would wait for ever."""

    def __init__(self, ray: Any, kind: Kind, processes: int, patience_s: float):
        self.ray, self.kind, self.processes, self.patience_s = ray, kind, processes, patience_s
        self.looked = self.there = time.monotonic()

    def must_be_there(self) -> None:
        """Raises Gone where there has been no such machine for `patience_s`."""
        now = time.monotonic()
        if now - self.looked < min(_LOOK_AGAIN_S, self.patience_s):
            return
        self.looked = now
        if any(self.kind.is_on(node["Resources"], self.processes) for node in self.ray.nodes() if node["Alive"]):
            self.there = now
        elif now - self.there >= self.patience_s:
            raise Gone(
                f"the Ray cluster has lost its last machine with {self.kind.name or 'cards'}; what is done is in the "
                "record: when it is back, the same command goes on"
            )


@dataclass(frozen=True)
class Fleet:
    """A cluster that is reached, and the kinds of its devices that are to be used. Tests replace `command`."""

    ray: Any
    kinds: tuple[Kind, ...]
    command: tuple[str, ...] = ()  # that serves jobs; by default the one of harness.workers.process

    @property
    def count(self) -> int:
        return sum(kind.count for kind in self.kinds)


def reach(address: str | None, requested: Sequence[str], device: str) -> Fleet:
    """The cluster and what to use of it. Raises UserError as `connect` and `kinds` do."""
    ray = connect(address)
    return Fleet(ray, tuple(kinds(ray, requested, device)))


def disconnect() -> None:
    """Leaves the cluster; ends it where `connect` has started it."""
    with suppress(ImportError):
        import ray

        ray.shutdown()
