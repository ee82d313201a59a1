"""The harness's own cost: its measuring loop against a bare loop around the same step, alternated in one run.

Run it alone for the ratio: python -m bench.bench_overhead. Under pytest-benchmark it records both sides.
"""

import time
from statistics import median

import torch

from harness.measure.timing import sample
from harness.records.cell import ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.step import TrainingStep

# A few milliseconds a micro-step: the smaller the step, the more any overhead shows.
SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}
ROUNDS, BLOCK = 40, 32


def _sides():
    """(bare, harness): each runs BLOCK micro-steps and two updates and returns the seconds of a micro-step."""
    from harness.catalog.precisions import find

    device, recipe = torch.device("cpu"), Recipe()
    loaded = models.load(ModelSpec("small", SMALL, 512), find("fp32"), "fp32", recipe, "random", device)
    step = TrainingStep(loaded.model, recipe, "fp32", device)
    batch = random_batch(512, 128, recipe, device, seed=0)

    def bare():
        start = time.perf_counter()
        for i in range(BLOCK):
            step.micro_step(batch)
            if (i + 1) % recipe.micro_steps_per_step == 0:
                step.update()
        return (time.perf_counter() - start) / BLOCK

    def harness():
        ends = iter([False] * (BLOCK - 1) + [True])
        stop = []

        def micro_step():
            step.micro_step(batch)
            stop.append(next(ends, True))

        # The loop that profiling runs, with its clock, waits and stopping rule; it ends after BLOCK by its time limit.
        start = time.perf_counter()
        found = sample(
            micro_step,
            step.update,
            wait=lambda: None,
            clock=lambda: time.perf_counter() + (1e9 if len(stop) >= BLOCK else 0),
            micro_steps_per_step=recipe.micro_steps_per_step,
            max_seconds=1e6,
        )
        taken = len(found.micro_s) + len(found.warmup_micro_s)
        return (time.perf_counter() - start) / taken

    return bare, harness


def compare(rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median seconds of a bare micro-step and of the harness's, and the median of their ratios, A B A B."""
    bare, harness = _sides()
    bare(), harness()
    a, b = [], []
    for i in range(rounds):
        first, second = (bare, harness) if i % 2 else (harness, bare)
        x, y = first(), second()
        a.append(x if i % 2 else y)
        b.append(y if i % 2 else x)
    return median(a), median(b), median(y / x for x, y in zip(a, b, strict=True))


def test_bare_loop(benchmark):
    benchmark.pedantic(_sides()[0], rounds=10, warmup_rounds=1)


def test_harness_loop(benchmark):
    benchmark.pedantic(_sides()[1], rounds=10, warmup_rounds=1)


if __name__ == "__main__":
    bare_s, harness_s, ratio = compare()
    print(f"bare {1e3 * bare_s:.2f} ms, harness {1e3 * harness_s:.2f} ms a micro-step; harness / bare {ratio:.4f}")
