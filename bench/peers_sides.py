"""The sides of bench.peers, each in a process of its own: it loads the model and runs a step per line that comes in."""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.records.cell import Recipe

if TYPE_CHECKING:
    import torch

SIDES = ("own", "plain", "trl", "trl-best")
READY, TOOK = "ready", "took "  # how the lines start that a side writes for bench.peers
ANSWER_SHARE = 0.12
Sequences = list[tuple[list[int], int]]  # (token ids, answer tokens)


def run_side(args: argparse.Namespace) -> None:
    """Loads the model and runs `args.side`'s steps, until the input ends."""
    import torch

    from bench.peers_trl import trl
    from harness.catalog import models, precisions
    from harness.hardware.probe import rates
    from harness.train import model as loading

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    catalog = models.load()
    spec, precision = catalog.find(args.model), precisions.find(args.precision)
    compute = precision.name if not precision.quantized else precisions.native_dtype(rates(device, precisions.DTYPES))
    recipe = replace(catalog.recipe, sequences_per_step=args.per_step, learning_rate=1e-4)
    if args.side == "own":
        recipe = replace(recipe, gradient_checkpointing=args.checkpointing)
    else:
        recipe = replace(recipe, implementation="reference")
    loaded = loading.load(spec, precision, compute, recipe, "random", device)
    data = sequences(args, spec.architecture["vocab_size"])
    if args.side == "own":
        own(loaded.model, recipe, compute, data, device)
    elif args.side == "plain":
        plain(loaded.model, recipe, data, device)
    else:
        trl(loaded.model, recipe, compute, data, best=args.side == "trl-best")


def sequences(args: argparse.Namespace, vocab_size: int) -> Sequences:
    """The sequences of all steps one after the other, the same for every side."""
    rng = random.Random(0)
    total = args.per_step * (args.steps + 1)
    if not args.arc:
        sizes = [(n, max(1, round(ANSWER_SHARE * n))) for n in (args.lengths * total)[:total]]
    else:
        sizes = rng.sample(arc_lengths(args.arc), total)
    return [([rng.randrange(vocab_size) for _ in range(n)], answer) for n, answer in sizes]


def arc_lengths(longest: int) -> list[tuple[int, int]]:
    """Tokens and answer tokens of every leave-one-out prompt of ARC-AGI-1's evaluation set that fits."""
    from harness.arc.examples import SETS
    from harness.arc.prompt import build
    from harness.arc.sources import load
    from harness.catalog import weights
    from harness.train.model import load_tokenizer

    tokenizer = load_tokenizer(weights.BUNDLED + "arc-tiny")
    prompts = [
        build(tokenizer, e.demonstrations, e.test_input, e.output, "rows")
        for task in load("arc1-evaluation")[0]
        for e in SETS["n-1"](task)
    ]
    return [(len(prompt.ids), prompt.answer_tokens) for prompt in prompts if len(prompt.ids) <= longest]


def report(seconds: float, loss: float, packs: str = "") -> None:
    """Writes what one step took; `packs` says how its sequences were put together, where a side does so."""
    step = {"seconds": seconds, "loss": loss, "peak": peak_bytes(), "packs": packs}
    print(TOOK + json.dumps(step), flush=True)


def peak_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def turns(run_step: Callable[[], float], packs: Callable[[], str] = lambda: "") -> None:
    """Runs one step for each line that comes in, and reports its seconds and its loss."""
    print(READY, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = run_step()
        report(time.perf_counter() - start, loss, packs())


def own(model: "torch.nn.Module", recipe: Recipe, compute: str, data: Sequences, device: "torch.device") -> None:
    """Our step, packed as harness.tune packs: as many tokens at once as the device has room for."""
    from harness.train.packing import Packing, PackSetting, default_tokens_at_once
    from harness.train.packing import run_step as run_packed
    from harness.train.step import TrainingStep

    step = TrainingStep(model, recipe, compute, device)
    tokens = max(default_tokens_at_once(model), *(len(ids) for ids, _ in data))
    packing = Packing(model, PackSetting(tokens, recipe.gradient_checkpointing))
    starts = iter(range(0, len(data), recipe.sequences_per_step))

    def run_step() -> float:
        start = next(starts)
        # `item` waits for the device, so the seconds are of finished work.
        return run_packed(step, data[start : start + recipe.sequences_per_step], packing, "in a step").item()

    turns(run_step, packs=lambda: str(packing.setting))


def plain(model: "torch.nn.Module", recipe: Recipe, data: Sequences, device: "torch.device") -> None:
    """The loop of the libraries' documentation, one sequence at a time."""
    import torch

    params = [p for p in model.parameters() if p.requires_grad]
    optimizer, remaining = torch.optim.AdamW(params, lr=recipe.learning_rate), iter(data)

    def run_step() -> float:
        total = 0.0
        for _ in range(recipe.sequences_per_step):
            ids, answer = next(remaining)
            input_ids = torch.tensor([ids], device=device)
            labels = torch.tensor([[-100] * (len(ids) - answer) + ids[-answer:]], device=device)
            loss = model(input_ids=input_ids, labels=labels).loss / recipe.sequences_per_step
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return total

    turns(run_step)
