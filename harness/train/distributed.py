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
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from harness.errors import Unsupported

_STOP = 0  # what the first process broadcasts; other numbers are those of functions
_RENDEZVOUS = "TTFT_BENCH_RENDEZVOUS"
# Messages between CPUs wait for a process that still loads or answers: one card may be hours ahead of another. That a
# process died the parent sees. Collectives on cards come right after such a message, so there a short wait says enough.
_PATIENCE, _TIMEOUT = timedelta(days=1), timedelta(minutes=10)
_T = TypeVar("_T")
_messages: Any = None  # the group of processes that messages go through


def rank() -> int:
    """This process's number; 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 where this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_launched() -> bool:
    """Whether this process was started as one of several."""
    return _RENDEZVOUS in os.environ


def own_device(device: torch.device) -> torch.device:
    """This process's device: the card LOCAL_RANK places after `device`; on a CPU the processes share the cores."""
    if device.type != "cuda" or not is_launched():
        return device
    return torch.device("cuda", (device.index or 0) + int(os.environ["LOCAL_RANK"]))


def init(device: torch.device) -> torch.device:
    """Makes `own_device` the current one, and joins the process group if this process is one of several.

    Libraries launch kernels on the current card, whichever their tensors are on. Returns the device.
    """
    global _messages
    device = own_device(device)
    on_cards = device.type == "cuda"
    if on_cards:
        torch.cuda.set_device(device)
    if not is_launched() or dist.is_initialized():
        return device
    # A file, not torchrun's TCPStore: that listens on every interface, for anybody.
    count = int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(os.environ[_RENDEZVOUS], count)
    store.set_timeout(_PATIENCE)
    backend = "cpu:gloo,cuda:nccl" if on_cards else "gloo"
    dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=count, timeout=_TIMEOUT)
    _messages = dist.new_group(backend="gloo", timeout=_PATIENCE)
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
    dist.all_gather_object(parts, part, group=_messages)
    return parts


def any_of(flag: bool) -> bool:
    """Whether `flag` holds in any of the processes."""
    if world_size() == 1:
        return flag
    # A CPU tensor, so the message goes through gloo and does not wait for the card.
    value = torch.tensor(int(flag))
    dist.all_reduce(value, dist.ReduceOp.MAX, group=_messages)
    return bool(value)


def from_first(choose: Callable[[], _T]) -> _T:
    """What `choose` returns, or raises, in the first process; the others take it over without calling it.

    For choices by measured time, which differ between cards: all must train with the same kernels.
    """
    if world_size() == 1:
        return choose()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome = [choose(), None]
        except Exception as problem:
            outcome = [None, problem]
    dist.broadcast_object_list(outcome, 0, group=_messages)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def must_agree(what: str, value: object) -> None:
    """Raises Unsupported where `value` is not the same in all processes: their gradients would be added up silently."""
    values = all_gather(value)
    if any(other != values[0] for other in values):
        by_rank = "; ".join(f"card {i}: {other}" for i, other in enumerate(values))
        raise Unsupported(f"the cards differ in {what} ({by_rank}); take cards of one kind, or --gpus 1")


def lead(*functions: Callable[[], None]) -> list[Callable[[], None]]:
    """The functions as the first process calls them: each tells the other processes to do the same, then runs."""

    def announced(command: int, run: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            _broadcast(command)
            run()

        return both

    if world_size() == 1:
        return list(functions)
    return [announced(number, run) for number, run in enumerate(functions, 1)]


def follow(*functions: Callable[[], None]) -> None:
    """The loop of every other process: runs the function that the first one announces, until `stop`."""
    while (command := _broadcast(_STOP)) != _STOP:
        functions[command - 1]()


def stop() -> None:
    """Ends the other processes' `follow`."""
    if world_size() > 1:
        _broadcast(_STOP)


def _broadcast(command: int) -> int:
    """The first process's `command`, on every process."""
    # A CPU tensor, so the message goes through gloo and does not wait for the card.
    message = torch.tensor(command)
    dist.broadcast(message, 0, group=_messages)
    return int(message)
