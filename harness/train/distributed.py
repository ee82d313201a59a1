"""Several processes that train one adapter, a card each, on their shares of every step's sequences.

They find each other as torchrun's do (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), over NCCL on cards, gloo on a CPU.
Each holds the whole model and the same adapter. Gradients are added up once a step, as DistributedDataParallel does
after its last micro-batch; an adapter has some MB of them, so there is nothing to hide behind the backward.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

_STOP, _MICRO_STEP, _UPDATE = 0, 1, 2
_PATIENCE = timedelta(minutes=30)  # for another process that is still loading or answering


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_member() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ


def environment(number: int, processes: int, port: int) -> dict[str, str]:
    """What tells a process its place among `processes` on this machine."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**where, "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def relaunch(processes: int, words: Sequence[str]) -> int:
    """Runs the verb in `words` in so many processes under torchrun, which share the cores; its exit code."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))  # torchrun would take 1, and say so at length
    return subprocess.call([*torchrun, "-m", "harness", *words], env={"OMP_NUM_THREADS": threads, **os.environ})


def init(device: torch.device) -> torch.device:
    """Joins the others, if there are any; returns this process's own device, counted on from `device`."""
    if not is_member() or dist.is_initialized():
        return device
    on_cards = device.type == "cuda"
    if on_cards:
        device = torch.device("cuda", (device.index or 0) + int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cards else "gloo", timeout=_PATIENCE)
    if not on_cards:
        torch.set_num_threads(max(1, torch.get_num_threads() // world()))
    return device


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(lengths: Sequence[int]) -> list[int]:
    """Which sequences are this process's: dealt from the longest to the shortest, there and back, so that all processes
    get about as many tokens."""
    if world() == 1:
        return list(range(len(lengths)))
    longest_first, count = sorted(range(len(lengths)), key=lambda i: -lengths[i]), world()
    there_and_back = [*range(count), *reversed(range(count))]
    return [i for place, i in enumerate(longest_first) if there_and_back[place % (2 * count)] == rank()]


def all_reduce_gradients(params: Sequence[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its sum over the processes, in one message."""
    if world() == 1:
        return
    for p in params:
        if p.grad is None:  # this process had no sequence
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in params])
    dist.all_reduce(flat)
    for p, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad.copy_(part.view_as(p))


def all_reduce(value: torch.Tensor) -> torch.Tensor:
    """The sum of a scalar over the processes."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def all_gather(part: object) -> list:
    """What every process has, by rank; picklable."""
    if world() == 1:
        return [part]
    found: list = [None] * world()
    dist.all_gather_object(found, part)
    return found


def lead(micro_step: Callable[[], None], update: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The first process's two acts, before each of which it tells the others to do the same."""

    def after(act: int, what: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            _broadcast(act)
            what()

        return run

    return (micro_step, update) if world() == 1 else (after(_MICRO_STEP, micro_step), after(_UPDATE, update))


def follow(micro_step: Callable[[], None], update: Callable[[], None]) -> None:
    """Another process's loop: does what the first one does, until it stops."""
    while (act := _broadcast(_STOP)) != _STOP:
        (micro_step if act == _MICRO_STEP else update)()


def stop() -> None:
    if world() > 1:
        _broadcast(_STOP)


def _broadcast(act: int) -> int:
    said = torch.tensor(act)
    dist.broadcast(said, 0)
    return int(said)
