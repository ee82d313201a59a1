"""Trains arc-tiny from nothing on generated tasks: make tiny.

Loss on every output but the first, so that each task teaches several times. Grids grow during the first half. Hidden
matrices learn by Muon (Jordan et al. 2024), the rest by AdamW, both at a constant rate after a warm-up that falls to
zero in the last fifth (Hu et al. 2024), so a run can be made longer. Masters are fp32; forward and backward run in bf16
where the device has it. One process a core learns faster than one on two cores: under torchrun gradients are averaged.
Stopped and started again it goes on from its last checkpoint; log.jsonl holds what was seen.
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
GROUP = 8  # steps whose tasks are made together and cut into batches of like lengths
LONGEST = 1500  # tokens of a task; longer ones are drawn again


def sequence(rng: random.Random, limit: int, tokens) -> list[int]:
    """Token ids of one generated task in a random view, answer and end included; small grids are more frequent."""
    while True:
        family = families.chained if rng.random() < 0.15 else rng.choice(list(families.TRAINED.values()))
        sizes = range(3, limit + 1)
        largest = rng.choices(sizes, [1 / size for size in sizes])[0]
        task, output = families.task(family, rng, largest, shown=rng.randint(3, 4))
        seen = (view := draw(rng, len(task.demonstrations), keep_background=0.9)).of(task)
        ids = build(tokens, seen.demonstrations, seen.test_inputs[0], view.apply(output), "rows").ids
        if len(ids) <= LONGEST:
            return list(ids)


def targets(ids: list[int]) -> list[int]:
    """What each position must predict: the tokens of outputs but the first, and what ends them; -100 elsewhere."""
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
    """GROUP batches of ids and targets, [sequences, tokens], each of about `budget` tokens and with little padding."""
    pool, total = [], 0
    while total < GROUP * budget:
        pool.append(sequence(rng, limit, tokens))
        total += len(pool[-1])
    # From short to long in groups of as many tokens, so that a batch holds sequences of like lengths.
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
    """The share of the peak learning rate at a step: warm-up, constant, the last fifth falling to 0."""
    falling = max(1, steps // 5)
    return min(1.0, (step + 1) / warm, max(0.0, (steps - step) / falling))


def limit_at(step: int, steps: int, largest: int) -> int:
    """The largest side of generated grids: from 3 cells to `largest` over the first half."""
    return min(largest, 3 + math.floor((largest - 2) * step / (0.5 * steps)))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A schedule of `steps`, its generated grids of at most `largest` cells a side, and the model's shape."""

    steps: int = 8000
    largest: int = 10
    batch_tokens: int = 4096  # of each process
    seed: int = 0
    adam: float = 3e-3  # peak learning rate of embeddings and norms
    muon: float = 0.02  # and of the matrices
    hidden: int = 160
    layers: int = 6
    heads: int = 4
    save_every: int = 50


class Trainer:
    """fp32 masters with their optimisers, and the copy in the device's dtype that runs forward and backward."""

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
        """One update at `share` of the peak learning rates; the mean loss over the labels that are not -100, in nats.

        `ids` and `labels`: int64 [sequences, tokens].
        """
        learned = labels >= 0
        # Right padding behind causal attention needs no mask: no real token sees it.
        hidden = self.work.model(input_ids=ids, use_cache=False).last_hidden_state[learned]
        loss = cross_entropy(self.work.lm_head(hidden).float(), labels[learned])
        loss.backward()
        # Gradients of the copy, averaged over processes and clipped to a norm of 1, are the masters'.
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
    """Trains until step `stop` (all by default) of the config's schedule, and saves the model in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer, tokens = Trainer(config, device), tokenizer()
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
        if group not in made:  # a step's batch is the same however often training was stopped
            rng = random.Random(f"{config.seed} {rank} {group}")
            limit = limit_at(group * GROUP, config.steps, config.largest)
            made = {group: batches(rng, limit, tokens, config.batch_tokens)}
        ids, labels = (part.to(device) for part in made[group][step % GROUP])
        loss = trainer.step(ids, labels, learning_rate_share(step, config.steps)).item()
        step, seen = step + 1, seen + world * int((ids != PAD_ID).sum())  # as many in each process, nearly
        average = loss if average is None else 0.98 * average + 0.02 * loss
        if rank == 0 and (step % config.save_every == 0 or step == stop):
            spent = time.monotonic() - start
            speed, left = (seen - first_tokens) / spent, spent / (step - first_step) * (stop - step)
            line = {"step": step, "tokens": seen, "loss": round(average, 4), "tokens_per_s": round(speed)}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"{step}/{stop} loss {average:.3f} {speed:.0f} tokens/s, {left / 60:.0f} min left", flush=True)
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
    parser.add_argument("--largest", type=int, default=defaults.largest, help="cells a side of generated grids")
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
