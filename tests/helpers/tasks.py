"""Tasks of one rule with their solutions, and tasks on disk."""

import json
import random
from pathlib import Path

from harness.arc.task import Pair, Task


def random_grid(rng, height, width):
    return tuple(tuple(rng.randrange(10) for _ in range(width)) for _ in range(height))


def made_tasks(count, rule=lambda grid: grid[::-1], shown=3):
    """Tasks of one rule (upside down), with their solutions."""
    rng, tasks, solutions = random.Random(0), [], {}
    for n in range(count):
        grids = [tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(2)) for _ in range(shown + 1)]
        tasks.append(Task(f"t{n}", tuple(Pair(g, rule(g)) for g in grids[:-1]), (grids[-1],)))
        solutions[f"t{n}"] = (rule(grids[-1]),)
    return tasks, solutions


def write_tasks(folder: Path, tasks, solutions) -> Path:
    """The tasks as a folder of ARC's JSON, one file a task."""
    folder.mkdir(parents=True, exist_ok=True)
    for p in tasks:
        tests = zip(p.test_inputs, solutions[p.id], strict=True)
        content = {
            "train": [{"input": pair.input, "output": pair.output} for pair in p.demonstrations],
            "test": [{"input": given, "output": output} for given, output in tests],
        }
        (folder / f"{p.id}.json").write_text(json.dumps(content))
    return folder
