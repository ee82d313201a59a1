"""Ways to answer with the same adapters: accuracy, and processor seconds per task, of greedy, drawn and dfs answers.

Trains an adapter per ARC task as bench/README.md's run of the 257 small tasks does, in an order drawn once, until the
time is up, and answers each task in every way with it.

    python -m bench.decoders --minutes 15 [--views 4] [--start 210]
"""

import argparse
import random
import time
from dataclasses import replace

from harness.analysis.stats import mcnemar, wilson
from harness.arc.arms import ARMS
from harness.arc.dataset import Questions
from harness.arc.score import score
from harness.cli.ttft import configure
from harness.records.arm import DFS, GREEDY, SAMPLE, SCORE, VOTE
from harness.tune import run
from harness.tune.answers import chosen, decoded
from harness.tune.outcome import ArmOutcome
from harness.tune.runner import ArmRunner
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

WAYS = ((GREEDY, VOTE), (GREEDY, SCORE), (SAMPLE, SCORE), (DFS, VOTE), (DFS, SCORE))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--start", type=int, default=0, help="leave out so many tasks, which an earlier run did")
    options = parser.parse_args()
    config = configure(
        "arc-tiny", tasks=257, arms="+ color swap", scope="task", steps=24, sequences_per_step=4, views=options.views,
        lora_targets="all-linear", learning_rate=4e-3,
    )  # fmt: skip
    with LocalExecutor() as executor, reserve(executor, config.device, 1) as report:
        spec = run.spec_of(config, report)
    runner = ArmRunner(spec, config.tasks, config.solutions)
    solved: dict[tuple[str, str], list[bool]] = {way: [] for way in WAYS}
    seconds = dict.fromkeys([*WAYS, ("train", "")], 0.0)
    end = time.monotonic() + 60 * options.minutes
    order = random.Random(0).sample(list(config.tasks), len(config.tasks))
    for task in order[options.start :]:
        if time.monotonic() > end:
            break
        # One adapter, and then every way with it.
        runner.adapter.reset()
        start = time.process_time()
        if ARMS["+ color swap"].pool([task]):
            runner._train(ARMS["+ color swap"], [task], ArmOutcome(), lambda *_: None, None)
        seconds["train", ""] += time.process_time() - start
        questions = Questions([task], runner.prompts, spec.views, spec.seed)
        for way in WAYS:
            start, own = time.process_time(), replace(spec, decode=way[0], select=way[1])
            texts = decoded(runner.model, runner.tokenizer, questions.prompts, questions.max_new_tokens, own)
            answers, choices, _ = chosen(runner.model, runner.tokenizer, questions, texts, own)
            seconds[way] += time.process_time() - start
            tried = {id: [[grid for grid, _ in best] for best in inputs] for id, inputs in choices.items()}
            solved[way].append(score(answers, {task.id: config.solutions[task.id]}, tried)[0].solved)
        _show(solved, seconds)


def _show(solved: dict[tuple[str, str], list[bool]], seconds: dict[tuple[str, str], float]) -> None:
    first, count = solved[WAYS[0]], len(solved[WAYS[0]])
    print(f"{count} tasks, training {seconds['train', ''] / count:.2f} s per task")
    for way, own in solved.items():
        low, high = wilson(sum(own), count)
        # Beside the first way: solved by this one alone, and by that one alone.
        gained = sum(now and not before for now, before in zip(own, first, strict=True))
        lost = sum(before and not now for now, before in zip(own, first, strict=True))
        print(
            f"  {way[0]} {way[1]}: {sum(own)} solved, {100 * sum(own) / count:.1f} % ({100 * low:.1f} to "
            f"{100 * high:.1f}), +{gained} -{lost}, p {mcnemar(first, own):.2g}, {seconds[way] / count:.2f} s per task",
            flush=True,
        )


if __name__ == "__main__":
    main()
