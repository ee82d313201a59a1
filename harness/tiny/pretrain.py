"""Trains arc-tiny from scratch on generated tasks.

The loss is on every output but the first, so that each task teaches several times. Grids grow during the first half.
Hidden matrices are trained with Muon (Jordan et al. 2024), the rest with AdamW. Both learning rates warm up, stay
constant and fall to zero in the last fifth (Hu et al. 2024), so a run can be extended. Master weights are fp32; forward
and backward run in bf16 where the device has it. Under torchrun gradients are averaged: one process per core learns
faster than one process on two cores. A run that was stopped resumes from its last checkpoint; log.jsonl holds losses.

    make tiny
"""

import argparse
import copy
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from harness.arc.augment import draw
from harness.arc.generated import families
from harness.arc.prompt import build
from harness.tiny.model import SYMBOLS, new, save, tokenizer
from harness.train.ops import attention

PAD_ID = SYMBOLS.index("<pad>")
INPUT_ID, OUTPUT_ID = SYMBOLS.index("I"), SYMBOLS.index("O")
CHECKPOINT = "checkpoint.pt"
GROUP = 8  # steps whose tasks are made together and split into batches of similar lengths
LONGEST = 1500  # tokens per task; a longer one is drawn again


def sequence(rng: random.Random, limit: int, tokens) -> list[int]:
    """Token ids of one generated task in a random view, with answer and end token; small grids are more frequent."""
    while True:
        family = families.chained if rng.random() < 0.15 else rng.choice(list(families.TRAINED.values()))
        sizes = range(3, limit + 1)
        largest = rng.choices(sizes, [1 / size for size in sizes])[0]
        task, output = families.task(family, rng, largest, shown=rng.randint(3, 4))
        view = draw(rng, len(task.demonstrations), keep_background=0.9)
        viewed = view.of(task)
        ids = build(tokens, viewed.demonstrations, viewed.test_inputs[0], view.apply(output), "rows").ids
        if len(ids) <= LONGEST:
            return list(ids)


def targets(ids: list[int]) -> list[int]:
    """The label of each position: tokens of all outputs but the first, and of what ends them; -100 elsewhere."""
    labels, inside, outputs = [-100] * len(ids), False, 0
    for i in range(len(ids) - 1):
        if ids[i] == OUTPUT_ID:
            inside, outputs = True, outputs + 1
        elif ids[i] == INPUT_ID:
            inside = False
        if inside and outputs > 1:
            labels[i] = ids[i + 1]
    return labels


def batches(rng: random.Random, limit: int, tokens, budget: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """GROUP batches of ids and labels, int64 [sequences, tokens], each of about `budget` tokens with little padding."""
    pool, total = [], 0
    while total < GROUP * budget:
        pool.append(sequence(rng, limit, tokens))
        total += len(pool[-1])
    # Sorted by length and split into groups of equal tokens, so that a batch has sequences of similar lengths.
    groups: list[list[list[int]]] = [[] for _ in range(GROUP)]
    placed = 0
    for ids in sorted(pool, key=len):
        groups[min(GROUP - 1, placed * GROUP // total)].append(ids)
        placed += len(ids)
    groups = [group for group in groups if group]
    rng.shuffle(groups)
    return [_padded(groups[i % len(groups)]) for i in range(GROUP)]


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows])
    return ids, torch.tensor([targets(row) + [-100] * (width - len(row)) for row in rows])


def learning_rate_share(step: int, steps: int, warm: int = 100) -> float:
    """The share of the peak learning rate at a step: warm-up, constant, falling to 0 in the last fifth."""
    falling = max(1, steps // 5)
    return min(1.0, (step + 1) / warm, max(0.0, (steps - step) / falling))


def limit_at(step: int, steps: int, largest: int) -> int:
    """The largest side of generated grids at a step: 3 cells at the start, `largest` from half of the steps on."""
    return min(largest, 3 + math.floor((largest - 2) * step / (0.5 * steps)))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A schedule of `steps`, the generated grids (at most `largest` cells per side), and the model's shape."""

    steps: int = 8000
    largest: int = 10
    batch_tokens: int = 4096  # per process
    seed: int = 0
    adam: float = 3e-3  # peak learning rate of embeddings and norms
    muon: float = 0.02  # peak learning rate of the matrices
    hidden: int = 160
    layers: int = 6
    heads: int = 4
    save_every: int = 50


class Trainer:
    """fp32 master weights with their optimisers, and a copy in the device's dtype for forward and backward."""

    def __init__(self, config: PretrainConfig, device: torch.device):
        self.model = new(config.seed, hidden=config.hidden, layers=config.layers, heads=config.heads)
        self.model.to(device).train()  # type: ignore[arg-type]  # transformers wraps `to` without its types
        self.work = copy.deepcopy(self.model).to(_dtype(device))  # type: ignore[arg-type]
        self.work.set_attn_implementation(attention.NAME)
        hidden = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in self.model.named_parameters() if p.ndim != 2 or "embed" in name]
        self.optimizers = (
            torch.optim.Muon(hidden, lr=config.muon, weight_decay=0.01),
            torch.optim.AdamW(others, lr=config.adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )
        self.peaks = (config.muon, config.adam)

    def step(self, ids: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
        """Makes one update at `share` of the peak learning rates; returns the mean loss in nats over real labels.

        `ids` and `labels`: int64 [sequences, tokens]; labels of -100 have no loss.
        """
        learned = labels >= 0
        # Padding is on the right, so causal attention hides it from every real token without a mask.
        hidden = self.work.model(input_ids=ids, use_cache=False).last_hidden_state[learned]
        loss = cross_entropy(self.work.lm_head(hidden).float(), labels[learned])
        loss.backward()
        # The masters get the copy's gradients, averaged over processes and clipped to a norm of 1.
        masters, copies = list(self.model.parameters()), list(self.work.parameters())
        flat = torch.cat([p.grad.flatten() for p in copies]).float()
        if dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        flat *= (1.0 / flat.norm()).clamp(max=1.0)
        for p, grad in zip(masters, flat.split([p.numel() for p in masters]), strict=True):
            p.grad = grad.view_as(p)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = share * peak
            optimizer.step()
        # The copy gets the new weights, rounded to its dtype.
        with torch.no_grad():
            for p, copied in zip(masters, copies, strict=True):
                copied.copy_(p)
                copied.grad = None
        return loss.detach()

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.work.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def _dtype(device: torch.device) -> torch.dtype:
    from harness.catalog.precisions import native_dtype
    from harness.hardware.probe import rates

    return torch.bfloat16 if native_dtype(rates(device, ("bf16", "fp32"))) == "bf16" else torch.float32


def train(out: Path, config: PretrainConfig, rank: int = 0, stop: int | None = None) -> None:
    """Trains up to step `stop` of the config's schedule (by default to its end) and saves the model in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer, tokens = Trainer(config, device), tokenizer()
    # Resume where an earlier run stopped.
    step, seen, path = 0, 0, out / CHECKPOINT
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        trainer.restore(saved)
        step, seen = saved["step"], saved["tokens"]
    world = dist.get_world_size() if dist.is_initialized() else 1
    start, first_step, first_tokens, average = time.monotonic(), step, seen, None
    made: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    stop = config.steps if stop is None else stop
    while step < stop:
        group = step // GROUP
        # Batches depend on seed, rank and step alone, so a resumed run sees the same ones.
        if group not in made:
            rng = random.Random(f"{config.seed} {rank} {group}")
            limit = limit_at(group * GROUP, config.steps, config.largest)
            made = {group: batches(rng, limit, tokens, config.batch_tokens)}
        ids, labels = (part.to(device) for part in made[group][step % GROUP])
        loss = trainer.step(ids, labels, learning_rate_share(step, config.steps)).item()
        step, seen = step + 1, seen + world * int((ids != PAD_ID).sum())  # as many in each process, nearly
        average = loss if average is None else 0.98 * average + 0.02 * loss
        # Progress to the log and the terminal, then a checkpoint, replaced in one go.
        if rank == 0 and (step % config.save_every == 0 or step == stop):
            elapsed_s = time.monotonic() - start
            speed, left_s = (seen - first_tokens) / elapsed_s, elapsed_s / (step - first_step) * (stop - step)
            line = {"step": step, "tokens": seen, "loss": round(average, 4), "tokens_per_s": round(speed)}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"{step}/{stop} loss {average:.3f} {speed:.0f} tokens/s, {left_s / 60:.0f} min left", flush=True)
            torch.save({**trainer.state(), "step": step, "tokens": seen}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    if rank == 0:
        save(trainer.model, out)


def main() -> None:
    defaults = PretrainConfig()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/arc-tiny"), help="folder of the model")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="of the schedule")
    parser.add_argument("--stop", type=int, help="stop after this step of the schedule, to be continued")
    parser.add_argument("--largest", type=int, default=defaults.largest, help="cells per side of generated grids")
    parser.add_argument("--batch-tokens", type=int, default=defaults.batch_tokens, help="of each process")
    parser.add_argument("--adam", type=float, default=defaults.adam, help="peak learning rate of embeddings and norms")
    parser.add_argument("--muon", type=float, default=defaults.muon, help="peak learning rate of the matrices")
    parser.add_argument("--hidden", type=int, default=defaults.hidden, help="width of the model")
    parser.add_argument("--layers", type=int, default=defaults.layers, help="of the model")
    parser.add_argument("--heads", type=int, default=defaults.heads, help="of attention")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights and tasks")
    options = vars(parser.parse_args())
    out, stop, rank = options.pop("out"), options.pop("stop"), int(os.environ.get("RANK", 0))
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train(out, PretrainConfig(**options), rank, stop)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
