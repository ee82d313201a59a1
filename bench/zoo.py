"""Every type of causal language model that transformers knows: trained right, or refused with the reason.

python -m bench.zoo [TYPE ...] [--processes N] [--write docs/models.md]      (make zoo writes the table)

A tiny model of each type (tests/helpers/zoo.py) is trained by the harness's own path and by a plain loop of
transformers and PEFT (tests/helpers/judge.py). Exit code 1 if one is wrong or crashes.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_HEAD = """# Models that can be trained

Made by `make zoo`: a tiny model of every type that transformers {transformers} lists for causal language models is
trained by `harness` and by a plain loop of transformers and PEFT {peft} (torch {torch}), fp32 on a CPU, LoRA on all
linear layers, sequences longer than every window. **right**: losses differ by at most 0.0001 nats and gradients by at
most 0.001 of the largest, sequence by sequence and packed; so do a step with the default targets, the losses of three
updates (0.001), and the loss in bf16 as far as the plain one in bf16 differs from fp32.

{summary}

- *plain* names what transformers computes, because ours would learn something else there; the rest of the step is ours.
- *packed* says whether sequences of different lengths run in one row; else they run one by one.
- *attention* says whether the default LoRA targets, attention's projections, are trained.
- *bf16* says whether plain transformers can train it in bf16, and ours as it does.
- *predicted* says whether `harness predict` can trace its step.

| type | trained | plain | packed | attention | bf16 | predicted |
|---|---|---|---|---|---|---|
"""


def one(model_type: str) -> dict[str, Any]:
    """The verdict on the tiny model of `model_type` and the seconds that it took, as a dictionary."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers import judge, zoo

    started = time.perf_counter()
    try:
        verdict = judge.judge(zoo.tiny(model_type), wide=True)
    except Exception as problem:
        verdict = judge.Verdict(judge.CRASH, f"{type(problem).__name__}: {problem}")
    return {"type": model_type, "seconds": time.perf_counter() - started, **asdict(verdict)}


def summary(rows: list[dict[str, Any]]) -> str:
    """What the rows come to, in sentences."""
    count = Counter(row["verdict"] for row in rows)
    trainable = sum(count[name] for name in ("right", "refused", "WRONG", "crash"))
    right = [row for row in rows if row["verdict"] == "right"]
    return (
        f"{len(rows)} types. Plain transformers and PEFT can train {trainable}: {count['right']} of them are right "
        f"here ({sum(row['packs'] for row in right)} packed, {sum(not row['traced'] for row in right)} predicted), "
        f"{count['refused']} refused, {count['WRONG']} wrong, {count['crash']} crash. {count['not causal']} are no "
        f"causal language models and refused as that; {count['plain fails']} plain transformers cannot train either."
    )


def table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in sorted(rows, key=lambda row: row["type"]):
        verdict = row["verdict"]
        if verdict == "right":
            cells = ["right", _cell(row["plain"]).replace("+", ", ") or "-", "yes" if row["packs"] else "no"]
            cells += [f"no: {_cell(row[name])}" if row[name] else "yes" for name in ("attention", "bf16", "traced")]
        elif verdict == "plain fails":
            cells = [f"not by transformers either: {_cell(row['detail'])}", "", "", ""]
        else:
            cells = [f"{verdict}: {_cell(row['detail'])}", "", "", ""]
        lines.append(f"| {row['type']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:160].replace(str(Path.home()), "~")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types; all by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, help="write the table to this file")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers import zoo

    # Fresh caches: nothing that an earlier version found is used. Fresh processes bound the memory.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TTFT_BENCH_CACHE"] = cache
        context = multiprocessing.get_context("spawn")
        rows = []
        with context.Pool(asked.processes, maxtasksperchild=16) as pool:
            for row in pool.imap_unordered(one, asked.types or zoo.TYPES):
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(summary(rows))
    if asked.write:
        from harness.hardware.environment import versions

        asked.write.write_text(_HEAD.format(summary=summary(rows), **versions()) + table(rows), encoding="utf-8")
    return int(any(row["verdict"] in ("WRONG", "crash") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
