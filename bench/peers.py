"""Our step beside its peers', on the same model, tokens, adapter and optimiser: how many times faster, at which loss.

python -m bench.peers [--model qwen2.5-0.5b] [--precision bf16] [--lengths 1024 | --arc 2048] [--sides own trl ...]
                      [--checkpointing none | mlp | all]

Every side is a process of its own, so that its peak memory is its own; they take turns (A B A B), step by step, and
medians are compared. The sides:

own       harness.train's step, as profiling times it and tuning runs it
plain     transformers and PEFT as their documentation shows them: labels masked by -100, micro-batch 1
trl       TRL's SFTTrainer with its defaults, on the same pre-tokenised sequences: loss on the answer, checkpointing
trl-best  the same without checkpointing, and padding-free batches where several sequences make a step

Random weights of the real shapes, which change no speed. TRL comes with the project's `peers` extra.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median

from harness.records.cell import RECOMPUTE

SIDES = ("own", "plain", "trl", "trl-best")
ANSWER_SHARE = 0.12
TOOK = "took "  # before what a side says of a step; libraries print lines of their own


def sequences(asked: argparse.Namespace, vocab: int) -> list[tuple[list[int], int]]:
    """(token ids, answer tokens) of every sequence of all steps, the same for every side."""
    rng = random.Random(0)
    total = asked.per_step * (asked.steps + 1)
    if not asked.arc:
        sizes = [(n, max(1, round(ANSWER_SHARE * n))) for n in (asked.lengths * total)[:total]]
    else:
        sizes = rng.sample(arc_lengths(asked.arc), total)
    return [([rng.randrange(vocab) for _ in range(n)], answer) for n, answer in sizes]


def arc_lengths(longest: int) -> list[tuple[int, int]]:
    """Tokens and answer tokens of every leave-one-out prompt of ARC-AGI-1's evaluation set that fits."""
    from harness.arc.examples import SETS
    from harness.arc.prompt import build
    from harness.arc.sources import load
    from harness.catalog import weights
    from harness.train.model import load_tokenizer

    tokens = load_tokenizer(weights.BUNDLED + "arc-tiny")
    prompts = [
        build(tokens, e.demonstrations, e.test_input, e.output, "rows")
        for p in load("arc1-evaluation")[0]
        for e in SETS["n-1"](p)
    ]
    return [(len(p.ids), p.answer_tokens) for p in prompts if len(p.ids) <= longest]


def turns(run_step) -> None:
    """Runs one step for each line that comes in, and says what it took."""
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = run_step()
        said = {"seconds": time.perf_counter() - start, "loss": loss, "peak": peak_bytes()}
        print(TOOK + json.dumps(said), flush=True)


def peak_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def side(asked: argparse.Namespace) -> None:
    import torch

    from harness.catalog import models, precisions
    from harness.hardware.probe import rates
    from harness.train import model as loading

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = models.load()
    spec, precision = known.find(asked.model), precisions.find(asked.precision)
    compute = precision.name if not precision.quantized else precisions.native_dtype(rates(device, precisions.DTYPES))
    recipe = replace(known.recipe, sequences_per_step=asked.per_step, learning_rate=1e-4)
    if asked.side == "own":
        recipe = replace(recipe, gradient_checkpointing=asked.checkpointing)
    else:
        recipe = replace(recipe, implementation="reference")
    loaded = loading.load(spec, precision, compute, recipe, "random", device)
    data = sequences(asked, spec.architecture["vocab_size"])
    if asked.side == "own":
        _own(loaded.model, recipe, compute, data, device)
    elif asked.side == "plain":
        _plain(loaded.model, recipe, data, device)
    else:
        _trl(loaded.model, recipe, compute, data, best=asked.side == "trl-best")


def _own(model, recipe, compute, data, device) -> None:
    from harness.train.step import TrainingStep

    step, steps = TrainingStep(model, recipe, compute, device), iter(range(0, len(data), recipe.sequences_per_step))

    def one() -> float:
        at = next(steps)
        return step.run(data[at : at + recipe.sequences_per_step], max(map(len, (ids for ids, _ in data)))).item()

    turns(one)


def _plain(model, recipe, data, device) -> None:
    import torch

    params = [p for p in model.parameters() if p.requires_grad]
    optimizer, todo = torch.optim.AdamW(params, lr=recipe.learning_rate), iter(data)

    def one() -> float:
        total = 0.0
        for _ in range(recipe.sequences_per_step):
            ids, answer = next(todo)
            input_ids = torch.tensor([ids], device=device)
            labels = torch.tensor([[-100] * (len(ids) - answer) + ids[-answer:]], device=device)
            loss = model(input_ids=input_ids, labels=labels).loss / recipe.sequences_per_step
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return total

    turns(one)


def _trl(model, recipe, compute, data, best: bool) -> None:
    import tempfile

    from datasets import Dataset
    from transformers import TrainerCallback, logging
    from trl import SFTConfig, SFTTrainer

    from harness.catalog import weights
    from harness.train.model import load_tokenizer

    logging.set_verbosity_error()
    cuda = next(model.parameters()).is_cuda
    rows = [{"input_ids": ids, "labels": [-100] * (len(ids) - n) + ids[-n:]} for ids, n in data]
    together = recipe.sequences_per_step if best and len({len(ids) for ids, _ in data}) == 1 else 1

    class Turns(TrainerCallback):
        start = 0.0
        loss = 0.0

        def on_step_begin(self, *_, **__):
            if not sys.stdin.readline():
                os._exit(0)
            self.start = time.perf_counter()

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                said = {"seconds": time.perf_counter() - self.start, "loss": logs["loss"], "peak": peak_bytes()}
                print(TOOK + json.dumps(said), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=together,
            gradient_accumulation_steps=recipe.sequences_per_step // together,
            gradient_checkpointing=not best,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            max_grad_norm=0.0,
            logging_steps=1,
            num_train_epochs=1,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not cuda,
            bf16=compute == "bf16",
            fp16=compute == "fp16",
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            loss_type="nll",
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(weights.BUNDLED + "arc-tiny"),
            callbacks=[Turns()],
        )
        print("ready", flush=True)
        trainer.train()


def compare(asked: argparse.Namespace) -> dict[str, list[dict]]:
    """What each side said of each step, taking turns; the first, which warms up, included."""
    running = {}
    for name in asked.sides:
        command = [sys.executable, "-m", "bench.peers", *sys.argv[1:], "--side", name]
        running[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        while (line := running[name].stdout.readline()).strip() != "ready":
            if not line:
                stop(running)
                raise SystemExit(f"{name} stopped before its first step; TRL comes with: pip install '.[peers]'")
    found: dict[str, list[dict]] = {name: [] for name in asked.sides}
    for number in range(asked.steps + 1):
        for name, process in running.items():
            process.stdin.write("step\n")
            line = process.stdout.readline()
            while line and not line.startswith(TOOK):
                line = process.stdout.readline()
            if not line:
                stop(running)
                raise SystemExit(f"{name} stopped in step {number}")
            found[name].append(json.loads(line.removeprefix(TOOK)))
            print(f"step {number} {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    stop(running)
    return found


def stop(running: dict[str, subprocess.Popen]) -> None:
    for process in running.values():
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-0.5b")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024])
    parser.add_argument("--arc", type=int, help="lengths of real ARC prompts up to this, instead of --lengths")
    parser.add_argument("--per-step", type=int, default=2, help="sequences an optimiser step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each side, after one to warm up")
    parser.add_argument("--checkpointing", choices=RECOMPUTE, default="none", help="of our own step")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side(asked)
        return
    found = compare(asked)
    base = found[asked.sides[0]]
    what = f"ARC prompts to {asked.arc}" if asked.arc else " ".join(map(str, asked.lengths)) + " tokens"
    print(f"{asked.model} {asked.precision}, {what}, {asked.per_step} sequences a step")
    for name, rows in found.items():
        seconds, peak = median(row["seconds"] for row in rows[1:]), max(row["peak"] for row in rows)
        ratio = median(row["seconds"] / own["seconds"] for row, own in zip(rows[1:], base[1:], strict=True))
        apart = max(abs(row["loss"] / own["loss"] - 1) for row, own in zip(rows, base, strict=True))
        print(
            f"{name:9} {seconds:7.2f} s a step, x{ratio:.2f}; peak {peak / 2**30:.2f} GiB; loss of step 1 "
            f"{rows[0]['loss']:.5f}, at most {apart:.1e} apart"
        )


if __name__ == "__main__":
    main()
