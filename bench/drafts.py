"""Guesses while answering: steps of the model and seconds per task, without and with them, and texts that they change.

Trains an adapter per ARC task as bench/README.md's run of the 257 small tasks does, in an order drawn once, until the
time is up, and answers each task with it in every way, one after the other. Seconds are the processor's on a CPU.

    python -m bench.drafts [--minutes 10] [--views 8] [--most 0 3 7 16] [--precision bf16] [--device cuda:0]
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from unittest import mock

import torch

from harness.arc.arms import ARMS
from harness.arc.dataset import Questions, cannot_be_grid
from harness.cli.ttft import configure
from harness.tune import decode, drafts, run
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_slots import Slots
from harness.tune.outcome import ArmOutcome
from harness.tune.runner import ArmRunner
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

ARM = ARMS["+ color swap"]
ALONE = -1  # instead of a number of guesses: none, and one row at a time


@dataclass
class Way:
    """Sums over the tasks that were answered with at most `guesses` guessed tokens per row and step. `differ` are the
    texts that are not those of the first way."""

    guesses: int
    tasks: int = 0
    texts: int = 0
    steps: int = 0
    seconds: float = 0.0
    differ: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--most", type=int, nargs="+", default=[0, 3, 7, 16], help=f"guesses; {ALONE}: row by row")
    parser.add_argument("--precision")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    config = configure(
        "arc-tiny", tasks=257, arms=ARM.name, scope="task", steps=24, sequences_per_step=4, views=options.views,
        lora_targets="all-linear", learning_rate=4e-3, precision=options.precision, device=options.device,
    )  # fmt: skip
    with LocalExecutor() as executor, reserve(executor, config.device, 1) as report:
        spec = run.spec_of(config, report)
    runner = ArmRunner(spec, config.tasks, config.solutions)
    clock = time.process_time if spec.device == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    ways = [Way(most) for most in options.most]
    end = time.monotonic() + 60 * options.minutes
    for task in random.Random(0).sample(list(config.tasks), len(config.tasks)):
        if time.monotonic() > end:
            break
        runner.adapter.reset()
        if ARM.pool([task]):
            runner._train(ARM, [task], ArmOutcome(), lambda *_: None, None)
        questions = Questions([task], runner.prompts, spec.views, spec.seed)
        first: list[str] = []
        for way in ways:
            start = clock()
            with _guessing(max(0, way.guesses)) as steps:
                texts = decode.greedy(
                    runner.model, runner.tokenizer, questions.prompts, questions.max_new_tokens,
                    hopeless=cannot_be_grid, limit=TokenLimit(1 if way.guesses == ALONE else None),
                )  # fmt: skip
            first = first or texts
            way.seconds += clock() - start
            way.tasks, way.texts, way.steps = way.tasks + 1, way.texts + len(texts), way.steps + len(steps)
            way.differ += sum(map(str.__ne__, texts, first))
        _show(ways)
    print(json.dumps([asdict(way) for way in ways]))


@contextmanager
def _guessing(most: int) -> Iterator[list[int]]:
    """At most `most` tokens are guessed; gives a list that gets an entry per step, its rows."""
    steps: list[int] = []
    step = Slots.step

    def counted(self: Slots, tokens: list) -> torch.Tensor:
        steps.append(len(tokens))
        return step(self, tokens)

    guessed = mock.patch.object(drafts, "drafted_tokens", lambda kind, rows: most)
    with mock.patch.object(Slots, "step", counted), guessed:
        yield steps


def _show(ways: list[Way]) -> None:
    first = ways[0]
    print(f"{first.tasks} tasks, {first.texts} texts")
    for way in ways:
        name = "row by row" if way.guesses == ALONE else f"{way.guesses} guesses"
        print(
            f"  {name}: {way.steps / way.tasks:.1f} steps per task (x{first.steps / way.steps:.2f}), "
            f"{way.seconds / way.tasks:.2f} s (x{first.seconds / way.seconds:.2f}), {way.differ} texts differ",
            flush=True,
        )


if __name__ == "__main__":
    main()
