"""What a training step costs beside its arithmetic: time, launches and Python calls per layer, measured on a CPU.

A fast card waits for the interpreter in a step of few tokens. So a model has here its real number of layers and hardly
any width: what is left of a micro-step is interpreter and dispatch. Our step takes a card's paths as far as a CPU has
them; beside it runs the plain loop of transformers and PEFT. Run it: python -m bench.bench_dispatch [--precision bf16]
"""

import argparse
import cProfile
import pstats
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.catalog.precisions import find
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.ops import attention
from harness.train.step import TrainingStep

LAYERS, TOKENS = 24, 16  # layers of qwen2.5-0.5b
NARROW = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}
ROUNDS, BLOCK = 12, 8
SIDES = {
    "own": Recipe(kernels="attention=sdpa pointwise=plain"),
    "plain": Recipe(implementation=REFERENCE, autocast=False),
}
# What the host reads, or whose size depends on values: on a card it waits there until all launched work is done.
_WAITS = ("_local_scalar_dense", "nonzero", "unique_consecutive", "masked_select", "is_nonzero", "equal")
_NO_LAUNCH = ("empty", "empty_like", "new_empty", "empty_strided", "detach", "alias", "_record_function_exit")


class Launches(TorchDispatchMode):
    """Counts operations that write something, for each of which a card launches a kernel or several; and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        self.waits += name in _WAITS
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        outputs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        writes = func._schema.is_mutable or any(t.untyped_storage()._cdata not in inputs for t in outputs)
        if name not in _NO_LAUNCH and writes:
            self.counts[name] += 1
        return out


def build(side: str, precision: str, layers: int = LAYERS) -> tuple[Callable[[], object], Callable[[], None]]:
    """(micro-step, update) of a side's narrow model."""
    device, recipe = torch.device("cpu"), SIDES[side]
    compute = precision if precision != "int4" else "bf16"
    spec = ModelSpec("narrow", NARROW | {"num_hidden_layers": layers}, 512)
    loaded = models.load(spec, find(precision), compute, recipe, "random", device)
    step = TrainingStep(loaded.model, recipe, compute, device)
    batch = random_batch(NARROW["vocab_size"], TOKENS, recipe, device, seed=0)
    return lambda: step.micro_step(batch), step.update


def launches(*runs: Callable[[], object]) -> Launches:
    with Launches() as counter:
        for run in runs:
            run()
    return counter


def python_calls(run: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(run)
    return pstats.Stats(profile).total_calls


def processor_ms(micro_step: Callable[[], object], update: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds of the processor's time of one micro-step, over a block of them, and of the update after it."""
    start = time.process_time()
    for _ in range(BLOCK):
        micro_step()
    middle = time.process_time()
    update()
    return 1e3 * (middle - start) / BLOCK, 1e3 * (time.process_time() - middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "int4"))
    parser.add_argument("--operations", action="store_true", help="which operations, and how many of each")
    options = parser.parse_args()
    # A card of compute capability 8.0 shares keys among heads in the kernel.
    attention._groups_in_kernel = lambda device, dtype: True
    torch.set_num_threads(1)
    sides = {side: build(side, options.precision) for side in SIDES}
    samples: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(ROUNDS + 1):
        for side, (micro_step, update) in sides.items():
            samples[side].append(processor_ms(micro_step, update))
    width = NARROW["hidden_size"]
    print(f"{options.precision}, {LAYERS} layers of width {width}, {TOKENS} tokens; per micro-step and layer:")
    for side, (micro_step, update) in sides.items():
        micro, updates = map(min, zip(*samples[side][1:], strict=True))  # the first is warm-up; others' load only adds
        micro_step()  # gradients are there already, as in a step's second micro-step
        counted, calls, updating = launches(micro_step), python_calls(micro_step), launches(update)
        total = counted.counts.total()
        print(
            f"{side:5}  {micro / LAYERS:.3f} ms  {total / LAYERS:.1f} launches  {calls / LAYERS:.0f} calls of Python;  "
            f"whole: {micro:.1f} ms, {total} launches, {counted.waits} waits;  update: {updates:.2f} ms, "
            f"{updating.counts.total()} launches, {updating.waits} waits"
        )
        if options.operations:
            print("  ", ", ".join(f"{name} {count}" for name, count in counted.counts.most_common()))


if __name__ == "__main__":
    main()
