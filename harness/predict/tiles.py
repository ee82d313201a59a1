"""How well a product's shape fills a card.

Its result is cut into tiles, and as many are computed at once as the card has processors, so the last wave may be
nearly empty; and each tile begins and ends with work that its depth must pay for.

The shares and the depth are fitted on measured latencies of 1296 bf16 products on six cards (bench.fit_tiles): off by
5 % in the median and 18 % at the 90th percentile, where one efficiency per card is off by 11 and 46 %. Knows no torch.
"""

import math
from functools import lru_cache

from harness.catalog.accelerators import CPU, Accelerator

# Streaming multiprocessors, by the name of the accelerator, and for cards of no table by compute capability.
_PROCESSORS = {
    "t4": 40, "p100": 56, "v100": 80, "rtx-3090": 82, "a10g": 80, "rtx-a6000": 84, "rtx-4090": 128, "rtx-5090": 170,
    "l4": 58, "l40s": 142, "a100-40gb": 108, "a100-80gb": 108, "h100": 132, "h100-pcie": 114, "h100-nvl": 132,
    "h200": 132, "b200": 148, "rtx-pro-6000": 188, "rtx-pro-6000-server": 188,
    "7.5": 40, "8.0": 108, "8.6": 82, "8.9": 128, "9.0": 132, "10.0": 148, "12.0": 170,
}  # fmt: skip
# (rows, columns) of a tile, and the share of the largest one's rate that it reaches.
TILES = (((256, 128), 1.0), ((128, 128), 0.946), ((128, 64), 0.838), ((64, 64), 0.816))
FILL = 122.0  # values of depth that the beginning and the end of a tile cost


def processors_of(accelerator: Accelerator) -> int | None:
    """The card's streaming multiprocessors; None for a CPU, and for a card whose compute capability is not known."""
    if accelerator.kind == CPU or not accelerator.capability:
        return None
    return _PROCESSORS.get(accelerator.name) or _PROCESSORS.get(accelerator.capability)


@lru_cache(maxsize=4096)
def idle_factor(rows: int, outputs: int, inputs: int, processors: int) -> float:
    """How many times longer a product [rows, inputs] x [inputs, outputs] takes than one that fills all processors."""
    padded = min(
        math.ceil(math.ceil(rows / height) * math.ceil(outputs / width) / processors) * height * width / share
        for (height, width), share in TILES
    )
    return padded * processors / (rows * outputs) * (1 + FILL / inputs)
