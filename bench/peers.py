"""Our step beside its peers', on the same model, tokens, adapter and optimiser: how many times faster, at which loss.

python -m bench.peers [--model qwen2.5-0.5b] [--precision bf16] [--lengths 1024 | --arc 2048] [--sides own trl ...]
                      [--checkpointing none | mlp | all]

Every side is a process of its own, so that its peak memory is its own; they take turns (A B A B), step by step, and
medians are compared. The sides:

own       harness.train's step, its sequences packed as `harness ttft` packs them on this device
plain     transformers and PEFT as their documentation shows them: labels masked by -100, micro-batch 1
trl       TRL's SFTTrainer with its defaults, on the same pre-tokenised sequences: loss on the answer, checkpointing
trl-best  the same without checkpointing, and a step's sequences in one batch where they are of one length

Random weights of the real shapes, which change no speed. TRL comes with the project's `peers` extra.
"""

import argparse
import json
import subprocess
import sys
from statistics import median
from typing import Any

from bench.peers_sides import READY, SIDES, TOOK, run_side
from harness.records.cell import RECOMPUTE

Running = dict[str, subprocess.Popen[str]]  # by the name of the side


def compare(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What each side reports of each step, taking turns; the first, which warms up, included."""
    running: Running = {}
    for name in args.sides:
        command = [sys.executable, "-m", "bench.peers", *sys.argv[1:], "--side", name]
        running[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if _line_with(running[name], READY) is None:
            stop(running)
            raise SystemExit(f"{name} stopped before its first step; TRL comes with: pip install '.[peers]'")
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in args.sides}
    for number in range(args.steps + 1):
        for name, process in running.items():
            assert process.stdin
            process.stdin.write("step\n")
            line = _line_with(process, TOOK)
            if line is None:
                stop(running)
                raise SystemExit(f"{name} stopped in step {number}")
            steps[name].append(json.loads(line.removeprefix(TOOK)))
            print(f"step {number} {name}: {steps[name][-1]}", file=sys.stderr, flush=True)
    stop(running)
    return steps


def _line_with(process: subprocess.Popen[str], start: str) -> str | None:
    """The next line of a side that starts so; libraries print lines of their own. None where it ended before."""
    assert process.stdout
    return next((line for line in process.stdout if line.startswith(start)), None)


def stop(running: Running) -> None:
    for process in running.values():
        process.kill()
        process.wait()


def summary(name: str, rows: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """One line of a side's steps beside those of the first side."""
    seconds, peak = median(row["seconds"] for row in rows[1:]), max(row["peak"] for row in rows)
    ratio = median(row["seconds"] / first["seconds"] for row, first in zip(rows[1:], base[1:], strict=True))
    apart = max(abs(row["loss"] / first["loss"] - 1) for row, first in zip(rows, base, strict=True))
    packs = f"; {rows[-1]['packs']}" if rows[-1].get("packs") else ""
    return (
        f"{name:9} {seconds:7.2f} s per step, x{ratio:.2f}; peak {peak / 2**30:.2f} GiB; loss of step 1 "
        f"{rows[0]['loss']:.5f}, at most {apart:.1e} apart{packs}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-0.5b")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024])
    parser.add_argument("--arc", type=int, help="lengths of real ARC prompts up to this, instead of --lengths")
    parser.add_argument("--per-step", type=int, default=2, help="sequences per optimiser step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each side, after one to warm up")
    parser.add_argument("--checkpointing", choices=RECOMPUTE, default="none", help="of our own step")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    steps = compare(args)
    lengths = f"ARC prompts to {args.arc}" if args.arc else " ".join(map(str, args.lengths)) + " tokens"
    print(f"{args.model} {args.precision}, {lengths}, {args.per_step} sequences per step")
    for name, rows in steps.items():
        print(summary(name, rows, steps[args.sides[0]]))


if __name__ == "__main__":
    main()
