"""How much torch's default allocator keeps where sequences have many lengths: its rules, replayed on a step's logits.

python -m bench.replay_allocator

Logits are the largest blocks of a step, and with every length they have another size. A block that was made for a
shorter sequence holds no longer one and is kept beside it, until the card is full. Replayed are the blocks of
transformers' loss of every token under autocast, in the order in which the tracer sees them come and go, through the
rules of c10/cuda/CUDACachingAllocator.cpp: the smallest free block that is large enough, the rest of it split off, free
neighbours merged within a segment, a new segment where nothing fits. Printed is what is reserved over what is held at
most, for sequences of one length and of many; the mean of the latter is harness/predict/varied_lengths.py's.
"""

import bisect
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean, stdev

_MIB = 2**20
_SMALL, _LARGE_FROM, _ROUND = _MIB, 10 * _MIB, 2 * _MIB
# (number of the block, bytes per logit, whether it is made or freed), of a forward and backward: logits in 16 bits, in
# fp32, their log softmax, both gradients.
SEQUENCE = (
    *((0, 2, True), (1, 4, True), (2, 4, True), (1, 4, False), (0, 2, False), (3, 4, True), (4, 4, True)),
    *((3, 4, False), (2, 4, False), (5, 2, True), (4, 4, False), (5, 2, False)),
)
_HELD = 12  # bytes per logit that are held at most
VOCABULARIES, LONGEST, MICRO_BATCHES, SEEDS, MICRO_STEPS = (32000, 151936), (512, 1024, 2048, 4096), (1, 4), 6, 160


@dataclass(eq=False)
class _Block:
    size: int
    number: int  # in the order in which they were made, which decides between blocks of one size
    before: "_Block | None" = None  # neighbours in the segment
    after: "_Block | None" = None
    free: bool = False


class CachingAllocator:
    """The rules of torch's allocator for blocks of more than 1 MiB. `reserved` never falls: no card is ever full."""

    def __init__(self) -> None:
        self.reserved = 0
        self._free: list[tuple[int, int]] = []  # (size, number), sorted
        self._blocks: dict[int, _Block] = {}  # the free ones
        self._numbers = count()

    def make(self, size: int) -> _Block:
        size = -(-size // 512) * 512
        fitting = bisect.bisect_left(self._free, (size, -1))
        if fitting < len(self._free):
            block = self._blocks.pop(self._free.pop(fitting)[1])
        else:
            # A segment of its own, of 20 MiB where the block is small.
            segment = 2 * _LARGE_FROM if size < _LARGE_FROM else -(-size // _ROUND) * _ROUND
            self.reserved += segment
            block = _Block(segment, next(self._numbers))
        block.free = False
        if block.size - size > _SMALL:
            rest = _Block(block.size - size, next(self._numbers), block, block.after)
            if block.after:
                block.after.before = rest
            block.size, block.after = size, rest
            self._put(rest)
        return block

    def release(self, block: _Block) -> None:
        if (before := block.before) and before.free:
            self._take(before)
            block.size, block.before = block.size + before.size, before.before
            if block.before:
                block.before.after = block
        if (after := block.after) and after.free:
            self._take(after)
            block.size, block.after = block.size + after.size, after.after
            if block.after:
                block.after.before = block
        self._put(block)

    def _put(self, block: _Block) -> None:
        block.free = True
        self._blocks[block.number] = block
        bisect.insort(self._free, (block.size, block.number))

    def _take(self, block: _Block) -> None:
        self._free.remove((block.size, block.number))
        del self._blocks[block.number]


def reserved_share(tokens: Sequence[int], vocabulary: int) -> float:
    """What is reserved after micro-steps of these `tokens`, over what the longest of them holds at most."""
    allocator = CachingAllocator()
    for n in tokens:
        held: dict[int, _Block] = {}
        for number, logit_bytes, made in SEQUENCE:
            if made:
                held[number] = allocator.make(logit_bytes * n * vocabulary)
            else:
                allocator.release(held.pop(number))
    return allocator.reserved / (_HELD * max(tokens) * vocabulary)


def _uniform(draw: random.Random) -> float:
    return draw.random()


def _skewed(draw: random.Random) -> float:
    """Log-normal around a quarter of the longest, longer ones dropped: as instruction data are."""
    while (share := draw.lognormvariate(math.log(0.25), 0.8)) > 1:
        pass
    return share


def varied() -> Iterator[tuple[str, float]]:
    """`reserved_share` of every case: lengths even or skewed, padded to the longest of a micro-batch."""
    for spread in (_uniform, _skewed):
        for vocabulary in VOCABULARIES:
            for longest in LONGEST:
                for size in MICRO_BATCHES:
                    for seed in range(SEEDS):
                        draw = random.Random(seed)
                        tokens = [
                            size * max(32, round(longest * max(spread(draw) for _ in range(size))))
                            for _ in range(MICRO_STEPS)
                        ]
                        yield spread.__name__.strip("_"), reserved_share(tokens, vocabulary)


def mean_and_log_sigma() -> tuple[float, float]:
    """Of all cases of `varied`: the mean, and the standard deviation of the logarithms."""
    shares = [share for _, share in varied()]
    return fmean(shares), stdev(map(math.log, shares))


def main() -> None:
    one = [reserved_share([longest] * 8, vocabulary) for longest in LONGEST for vocabulary in VOCABULARIES]
    print(f"one length: {fmean(one):.2f} times what is held ({min(one):.2f} to {max(one):.2f})")
    cases = list(varied())
    for name in dict.fromkeys(name for name, _ in cases):
        shares = [share for other, share in cases if other == name]
        print(f"{name} lengths: {fmean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")
    mean, log_sigma = mean_and_log_sigma()
    print(f"many lengths: {mean:.2f}, standard deviation of the logarithm {log_sigma:.2f}")


if __name__ == "__main__":
    main()
