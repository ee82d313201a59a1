"""Tokens per second of decoding, before and after: this tree against another commit's, in turns (A B A B).

Every turn is a process of its own, which loads the model and answers the same questions of ARC tasks; medians are
compared, of seconds and of processor seconds, which a busy machine disturbs less. "qwen2.5-0.5b" has that model's
layers with random weights and arc-tiny's tokens; its answers are cut after `--most` tokens.

    python -m bench.decoding --before COMMIT
    python -m bench.decoding --before COMMIT --model qwen2.5-0.5b --tasks 1 --most 32
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
TINY = "arc-tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", default="HEAD", help="the commit to compare with")
    parser.add_argument("--model", default=TINY, choices=[TINY, "qwen2.5-0.5b"])
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--most", type=int, default=0, help="new tokens per question at most")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        print(json.dumps(decoded(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        # The other commit's harness is imported from a worktree; this script is the same for both.
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "-q", tree, options.before], cwd=ROOT, check=True)
        try:
            sides: dict[str, list[dict]] = {"before": [], "after": []}
            for _ in range(options.turns):
                for side, root in (("before", tree), ("after", ROOT)):
                    sides[side].append(_turn(root))
                    print(side, sides[side][-1], flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    for kind in ("seconds", "processor_s"):
        before, after = (median(turn[kind] for turn in sides[side]) for side in sides)
        tokens = median(turn["tokens"] for turn in sides["after"])
        print(
            f"{kind}: {before:.1f} before, {after:.1f} after (x{before / after:.2f}); {tokens / after:.0f} tokens per"
        )


def _turn(root: Path) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--decode"]
    run = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True, capture_output=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def decoded(options: argparse.Namespace) -> dict:
    """Seconds and tokens of one decoding of all questions."""
    import torch

    import harness
    from harness.arc.dataset import Questions, cannot_be_grid
    from harness.arc.prompt import PromptFormat
    from harness.arc.sources import load
    from harness.arc.task import subset, within
    from harness.catalog import model_folder
    from harness.catalog import models as catalog
    from harness.catalog.precisions import find
    from harness.records.cell import Recipe
    from harness.train import model as models
    from harness.tune import decode

    folder = next(Path(harness.__file__).parent.glob("assets/**/config.json")).parent
    tokenizer = models.load_tokenizer(str(folder))
    tiny = options.model == TINY
    spec = model_folder.from_folder(folder) if tiny else catalog.load().find(options.model)
    precision, dtype = (find("fp32"), "fp32") if tiny else (find("bf16"), "bf16")
    weights = str(folder) if tiny else "random"
    model = models.load(spec, precision, dtype, Recipe(), weights, torch.device("cpu")).model
    tasks, _ = load("arc1-evaluation")
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=1024)
    questions = Questions(subset(within(tasks, 10), options.tasks, 0), prompts, options.views)
    limits = [min(limit, options.most or limit) for limit in questions.max_new_tokens]
    decode.greedy(model, tokenizer, questions.prompts[:2], [2, 2])  # libraries and the check of the architecture

    def hopeless(text: str) -> bool:
        return tiny and cannot_be_grid(text)

    start, busy = time.perf_counter(), time.process_time()
    texts = decode.greedy(model, tokenizer, questions.prompts, limits, hopeless=hopeless)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    # An answer without an end counts with its limit: somewhat too many where it was abandoned, on both sides alike.
    counted = [len(tokenizer(text)["input_ids"]) if text else limit for text, limit in zip(texts, limits, strict=True)]
    return {"seconds": round(seconds, 2), "processor_s": round(busy, 2), "tokens": sum(counted),
            "questions": len(texts), "answered": sum(map(bool, texts))}  # fmt: skip


if __name__ == "__main__":
    main()
