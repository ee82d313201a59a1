"""Is the projected accuracy true? arc-tiny tuned for the real 1000 steps against the interval from its first 125.

python -m bench.backtest_accuracy [--set generated] [--tasks 60] [--steps 1000] [--seeds 0 1] [--out FILE]

One run a seed: the same tasks, step and arm as `harness ttft`. It is evaluated at halving steps up to an eighth of the
way, as a short run would be, and once more at the end. One line a seed is added to FILE, so that a run that was
stopped goes on with the next seed.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from harness.analysis.learning_curve import MAX_REACH, accuracy_after
from harness.arc.dataset import Questions, TrainingSequences, cannot_be_grid, solved_sequences
from harness.arc.prompt import PromptFormat
from harness.arc.score import score
from harness.catalog import models as catalog
from harness.catalog import weights as weights_of
from harness.catalog.recipes import RecipeOptions, resolve
from harness.records.arm import CurvePoint, mean_loss
from harness.train import model as models
from harness.train.packing import Packing, PackSetting, default_tokens_at_once
from harness.train.step import TrainingStep
from harness.tune import decode, finetune
from harness.tune.config import TuneConfig, settings_for
from harness.tune.outcome import eval_steps


def run(source: str | None, tasks: int, steps: int, seed: int, arm: str) -> list[CurvePoint]:
    """The checkpoints of one run of `steps`: at halving steps up to steps / MAX_REACH, and the end."""
    from harness.catalog.precisions import DTYPES, find, native_dtype
    from harness.hardware.probe import rates

    known = catalog.load()
    spec = known.find("arc-tiny")
    settings = settings_for(known, spec).override(set=source, tasks=tasks, steps=steps)
    recipe = resolve(known.recipe, RecipeOptions(learning_rate=settings.learning_rate))
    exam = TuneConfig.of(spec, weights_of.resolve(spec, "auto"), settings, arms=arm, recipe=recipe, seed=seed)
    device = torch.device("cpu")
    dtype = native_dtype(rates(device, DTYPES))
    loaded = models.load(spec, find(dtype), dtype, exam.recipe, exam.weights, device, seed)
    tokenizer = models.load_tokenizer(exam.weights)
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=exam.context)
    questions = Questions(exam.tasks, prompts, exam.views, seed)
    truths = {task.id: exam.solutions[task.id] for task in exam.tasks}
    truth_sequences = solved_sequences(exam.tasks, truths, prompts)
    points, seen, begun = {*eval_steps(int(steps / MAX_REACH)), steps}, [], time.monotonic()

    def on_step(step: int, loss: float, state) -> None:
        if step in points:
            texts = decode.greedy(
                loaded.model, tokenizer, questions.prompts, questions.max_new_tokens, hopeless=cannot_be_grid
            )
            scores = tuple(each.attempts for each in score(questions.answers(texts), truths))
            seen.append(CurvePoint(step, mean_loss(decode.losses(loaded.model, truth_sequences)), scores))
            took = time.monotonic() - begun
            print(f"  step {step}: {100 * sum(scores) / len(scores):.1f} %, {took:.0f} s", flush=True)

    finetune.tune(
        TrainingStep(loaded.model, exam.recipe, dtype, device),
        TrainingSequences(exam.arms[0].stream(exam.tasks, seed), prompts),
        steps,
        on_step=on_step,
        packing=Packing(loaded.model, PackSetting(max(exam.context, default_tokens_at_once(loaded.model)))),
    )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", dest="source", help="by default what models.yaml says for arc-tiny")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arm", default="+ color swap")
    parser.add_argument("--out", type=Path, default=Path("results/backtest-accuracy.jsonl"))
    asked = parser.parse_args()
    inside = 0
    for seed in asked.seeds:
        seen = run(asked.source, asked.tasks, asked.steps, seed, asked.arm)
        *early, end = seen
        found = accuracy_after(early, asked.steps, seed)
        truth = sum(end.scores) / len(end.scores)
        line = {"set": asked.source, "tasks": asked.tasks, "seed": seed, "arm": asked.arm, "truth": truth}
        line |= {"checkpoints": [[c.steps, c.loss, sum(c.scores) / len(c.scores)] for c in seen], **vars(found)}
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        with asked.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if found.refused:
            print(f"seed {seed}: refused: {found.refused}; measured {100 * truth:.1f} %")
            continue
        inside += found.low <= truth <= found.high
        where = "inside" if found.low <= truth <= found.high else "OUTSIDE"
        print(
            f"seed {seed}: projected {100 * found.mid:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}), "
            f"measured {100 * truth:.1f} % at {asked.steps} steps: {where}"
        )
    print(f"{inside} of {len(asked.seeds)} inside")


if __name__ == "__main__":
    main()
