"""How bitsandbytes multiplies by a 4-bit matrix on a card: in a kernel that unpacks as it multiplies, or in two steps.

From 0.50 on few rows (tokens of a micro-batch) go to a fused kernel, many to dequantising the whole matrix and an
ordinary product; where the border lies depends on the card and the shape. `most_fused_rows` mirrors
`_gemm_4bit_use_custom_cuda` in bitsandbytes 0.50's backends/cuda/ops.py (MIT), which is measured card by card; a test
holds it to the installed one. The backward always dequantises. Knows no torch.
"""

from harness.catalog.accelerators import CPU, Accelerator
from harness.catalog.precisions import FUSED_4BIT_ROWS
from harness.predict.tiles import processors_of

_BLOCK = 64  # values that share a scale; a row must be a multiple of it
_SMALL = 4 << 20  # values of a matrix whose dequantising costs more than its product


def is_fused(accelerator: Accelerator, dtype: str, rows: int, outputs: int, inputs: int) -> bool:
    """Whether `rows` rows of activations in `dtype` times a matrix [outputs, inputs] run in the fused kernel.

    False for a card whose compute capability is not known.
    """
    if accelerator.kind == CPU or not accelerator.capability or rows > FUSED_4BIT_ROWS or inputs % _BLOCK:
        return False
    processors = processors_of(accelerator)
    if processors is None:
        return False
    major, minor = map(int, accelerator.capability.split("."))
    return rows <= most_fused_rows((major, minor), processors, dtype, outputs, inputs)


def most_fused_rows(capability: tuple[int, int], processors: int, dtype: str, n: int, k: int) -> int:
    """The most rows that the fused kernel takes for a matrix [n, k]; exact from nine rows on."""
    major, _ = capability
    # Tensor cores multiply in 16 bits, on a card of 7.5 in fp16 alone; what is left is for single tokens.
    if dtype == "fp32" or capability < (7, 5) or (capability == (7, 5) and dtype != "fp16"):
        return 8
    if capability == (8, 7) or major == 11:
        return 0
    blocks = -(-n // 64)
    if major == 10:
        return 32 if blocks >= 3 * processors else 8 if blocks >= processors and k < n else 0
    if n * k < _SMALL:
        return _short(capability, processors, blocks, k) if 2 * k < n else _small(capability, processors, blocks, n, k)
    ladder = {(7, 5): _sm75, (8, 0): _sm80, (8, 6): _sm86, (9, 0): _sm90, (12, 0): _sm120}.get(capability, _others)
    if capability == (12, 1) and blocks >= processors:
        return 256
    return ladder(processors, blocks, n, k)


def _short(capability: tuple[int, int], processors: int, blocks: int, k: int) -> int:
    """Small matrices with rows less than half as long as their columns."""
    if capability in ((8, 0), (9, 0)):
        few = 3 * blocks < processors
        return (1536 if few else 512) if capability == (8, 0) else (512 if few else 320)
    if capability == (7, 5):
        if blocks >= 3 * processors:
            return 320
        return 64 if k >= 1024 else 96 if k >= 704 else 320
    return 192 if blocks < processors and blocks * k > 320 * processors else 320


def _small(capability: tuple[int, int], processors: int, blocks: int, n: int, k: int) -> int:
    quarter = 4 * blocks <= processors
    if capability == (8, 0) and quarter:
        return (32 if 8 * blocks <= processors else 128) if k >= n else 384
    if capability == (7, 5) and blocks < processors:
        return 64
    if quarter:
        return 32 if k < n or capability in ((8, 0), (9, 0)) else 23
    return 16 if 2 * blocks <= processors else 0


def _sm75(processors: int, blocks: int, n: int, k: int) -> int:
    if blocks >= 3 * processors:
        return 128 if k < n else 64
    return 64 if blocks >= processors // 2 else 32


def _sm80(processors: int, blocks: int, n: int, k: int) -> int:
    if blocks >= 3 * processors:
        return 128
    if blocks >= processors:
        return 64 if k < n else 32
    if (k >= 3 * n and 4 * blocks > processors) or (k == n and blocks >= 48 and 5 * blocks < 3 * processors):
        return 0
    if 2 * blocks < processors:
        if k <= n:
            return 128
        if 3 * blocks >= processors:
            return 0
    return 128 if blocks >= processors // 2 and k < n else 16


def _sm86(processors: int, blocks: int, n: int, k: int) -> int:
    return 128 if blocks >= processors else 64 if blocks >= processors // 2 else 16


def _sm90(processors: int, blocks: int, n: int, k: int) -> int:
    for waves, rows in ((3, 64), (2, 48), (1, 32)):
        if blocks >= waves * processors:
            return rows
    if blocks < processors // 2 or (k >= n and 4 * blocks < 3 * processors):
        return 0
    return 16


def _sm120(processors: int, blocks: int, n: int, k: int) -> int:
    if blocks >= 2 * processors:
        return 256 if blocks >= 3 * processors else 128
    if 5 * blocks >= 4 * processors:
        return 96 if k >= n else 64
    if blocks >= processors // 2:
        return 64 if 2 * k >= n and blocks >= 128 else 8
    return 16 if k > 2 * n and blocks > 64 else 8


def _others(processors: int, blocks: int, n: int, k: int) -> int:
    """Cards of 8.9, and those that have no ladder of their own."""
    tall = k > 2 * n
    if blocks >= 2 * processors:
        return 256 if blocks >= 3 * processors else 128
    if 5 * blocks >= 4 * processors:
        if tall or blocks >= 200:
            return 128
        return (128 if processors >= 60 else 32) if k >= n else 64
    if blocks >= processors // 2:
        return 64 if tall else 8 if blocks >= 64 else 32
    if k > n and blocks <= 48:
        return 12 if k >= 3 * n else 10
    return 16 if tall or blocks < 48 else 8
