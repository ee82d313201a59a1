"""Trains arc-tiny from nothing on generated tasks: python -m harness.tiny.pretrain --out FOLDER (make tiny).

Loss on every output but the first, so that each task teaches several times. Grids grow during the first part. The
learning rate is constant after its warm-up and falls to zero in the last tenth (Hu et al. 2024), so a run can be made
longer. Stopped and started again it goes on from its last checkpoint; log.jsonl holds what was seen.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from harness.arc.augment import draw
from harness.arc.prompt import build
from harness.tiny import families
from harness.tiny.model import SYMBOLS, new, save, tokenizer

PAD_ID, EOS_ID = SYMBOLS.index("<pad>"), SYMBOLS.index("</s>")
INPUT_ID, OUTPUT_ID = SYMBOLS.index("I"), SYMBOLS.index("O")
CHECKPOINT = "checkpoint.pt"


def sequence(rng: random.Random, largest: int, tokens) -> list[int]:
    """Token ids of one generated task in a random view, answer and end included."""
    family = families.chained if rng.random() < 0.25 else rng.choice(list(families.TRAINED.values()))
    puzzle, output = families.task(family, rng, largest, pairs=rng.randint(3, 4))
    view = draw(rng, len(puzzle.pairs), keep_background=0.9)
    seen = view.of(puzzle)
    return list(build(tokens, seen.pairs, seen.test_inputs[0], view.apply(output), "rows").ids)


def targets(ids: list[int]) -> list[int]:
    """What each position must predict: the tokens of outputs but the first, and what ends them; -100 elsewhere."""
    said, inside, outputs = [-100] * len(ids), False, 0
    for i in range(len(ids) - 1):
        if ids[i] == OUTPUT_ID:
            inside, outputs = True, outputs + 1
        elif ids[i] == INPUT_ID:
            inside = False
        if inside and outputs > 1:
            said[i] = ids[i + 1]
    return said


def batch(rng: random.Random, largest: int, tokens, budget: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and targets, [sequences, tokens], of about `budget` tokens with little padding."""
    pool = sorted((sequence(rng, largest, tokens) for _ in range(96)), key=len)
    start = rng.randrange(len(pool))
    chosen = [pool[start]]
    for ids in (*pool[start + 1 :], *reversed(pool[:start])):
        if (len(chosen) + 1) * max(len(ids), len(chosen[0]), len(chosen[-1])) > budget:
            break
        chosen.append(ids)
    width = max(map(len, chosen))
    ids = torch.tensor([c + [PAD_ID] * (width - len(c)) for c in chosen])
    said = torch.tensor([targets(c) + [-100] * (width - len(c)) for c in chosen])
    return ids, said


def rate(step: int, steps: int, peak: float, warm: int = 100) -> float:
    falling = max(1, steps // 10)
    return peak * min(1.0, (step + 1) / warm, max(0.0, (steps - step) / falling))


def largest_at(step: int, steps: int, largest: int) -> int:
    """Grids grow from 3 cells a side to `largest` over the first half."""
    return min(largest, 3 + math.floor((largest - 2) * step / (0.5 * steps)))


def train(out: Path, steps: int, largest: int, budget: int, peak: float, seed: int, save_every: int = 50) -> None:
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokens = new(seed).to(device).train(), tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    step, seen, path = 0, 0, out / CHECKPOINT
    if path.exists():
        kept = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        step, seen = kept["step"], kept["tokens"]
    begun, begun_tokens, average = time.monotonic(), seen, 0.0
    while step < steps:
        rng = random.Random(f"{seed} {step}")  # the batch of a step is the same however often training was stopped
        ids, said = (part.to(device) for part in batch(rng, largest_at(step, steps, largest), tokens, budget))
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        logits = model(input_ids=ids, attention_mask=(ids != PAD_ID).long(), use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), said.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + int((ids != PAD_ID).sum())
        average = loss.item() if step == 1 else 0.95 * average + 0.05 * loss.item()
        if step % save_every == 0 or step == steps:
            speed = (seen - begun_tokens) / (time.monotonic() - begun)
            line = {"step": step, "tokens": seen, "loss": round(average, 4), "tokens_per_s": round(speed)}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"{step}/{steps} loss {average:.3f} {speed:.0f} tokens/s {seen / 1e6:.1f} M", flush=True)
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "tokens": seen}
            torch.save(kept, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    save(model, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/arc-tiny"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--largest", type=int, default=6, help="cells a side of generated grids")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    train(asked.out, asked.steps, asked.largest, asked.batch_tokens, asked.lr, asked.seed)


if __name__ == "__main__":
    main()
