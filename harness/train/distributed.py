"""Data parallelism: several processes, one per card, train one adapter on their shares of every step's sequences.

They are given RANK, LOCAL_RANK and WORLD_SIZE, as torchrun's are, and a file by which they find each other
(harness.workers.process.rank_environments). They talk over NCCL on cards, over gloo on a CPU, and listen on the
loopback interface alone.
All hold the whole model and the same adapter. Gradients are summed once per step, as DistributedDataParallel does
after its last micro-batch; an adapter has a few MB of them, so overlapping with the backward would gain nothing.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

_STOP, _MICRO_STEP, _UPDATE = 0, 1, 2  # what the first process broadcasts
_RENDEZVOUS = "TTFT_BENCH_RENDEZVOUS"
_TIMEOUT = timedelta(minutes=30)  # another process may still be loading or answering


def rank() -> int:
    """This process's number; 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 where this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_launched() -> bool:
    """Whether this process was started as one of several."""
    return _RENDEZVOUS in os.environ


def init(device: torch.device) -> torch.device:
    """Joins the process group if this process was launched as one of several.

    Returns this process's own device: the card LOCAL_RANK places after `device`.
    """
    if not is_launched() or dist.is_initialized():
        return device
    # Each process takes a card of its own; on a CPU they share the cores.
    on_cards = device.type == "cuda"
    if on_cards:
        device = torch.device("cuda", (device.index or 0) + int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # A file, not torchrun's TCPStore: that listens on every interface, for anybody.
    count = int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(os.environ[_RENDEZVOUS], count)
    store.set_timeout(_TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if on_cards else "gloo"
    dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=count, timeout=_TIMEOUT)
    if not on_cards:
        torch.set_num_threads(max(1, torch.get_num_threads() // world_size()))
    return device


def shard(lengths: Sequence[int]) -> list[int]:
    """Indices of this process's sequences, given the tokens of each.

    Snake order over ranks, longest first (0, 1, 1, 0, 0, 1 ...), so that ranks get similar token counts.
    """
    count = world_size()
    if count == 1:
        return list(range(len(lengths)))
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    snake = [*range(count), *reversed(range(count))]
    return [i for place, i in enumerate(longest_first) if snake[place % (2 * count)] == rank()]


def all_reduce_gradients(params: Sequence[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its sum over the processes, in one message."""
    if world_size() == 1:
        return
    # None where this process had no sequence.
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    # One message: an adapter has hundreds of small gradients, and each message costs its latency.
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    for p, grad, part in zip(params, grads, flat.split([p.numel() for p in params]), strict=True):
        p.grad = grad.copy_(part.view_as(grad))


def all_reduce(value: torch.Tensor) -> torch.Tensor:
    """The sum of a scalar over the processes."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def all_gather(part: object) -> list:
    """The picklable `part` of every process, in order of rank."""
    if world_size() == 1:
        return [part]
    parts: list = [None] * world_size()
    dist.all_gather_object(parts, part)
    return parts


def lead(micro_step: Callable[[], None], update: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The functions as the first process calls them: each tells the other processes to do the same, then runs."""

    def announced(command: int, run: Callable[[], None]) -> Callable[[], None]:
        def announce_and_run() -> None:
            _broadcast(command)
            run()

        return announce_and_run

    if world_size() == 1:
        return micro_step, update
    return announced(_MICRO_STEP, micro_step), announced(_UPDATE, update)


def follow(micro_step: Callable[[], None], update: Callable[[], None]) -> None:
    """The loop of every other process: does what the first one announces, until `stop`."""
    while (command := _broadcast(_STOP)) != _STOP:
        (micro_step if command == _MICRO_STEP else update)()


def stop() -> None:
    """Ends the other processes' `follow`."""
    if world_size() > 1:
        _broadcast(_STOP)


def _broadcast(command: int) -> int:
    """The first process's `command`, on every process."""
    # A CPU tensor, so the message goes through gloo and does not wait for the card.
    message = torch.tensor(command)
    dist.broadcast(message, 0)
    return int(message)
