"""Fuzzes every verb with bad input: tests/fuzz has the table of what is spoiled and what must hold then.

Every distinct fault is printed once, with the folder of its shortest example: `files` that differ from the world's, and
example.json with the command line. Exit code 1 where there is one.

    python -m bench.fuzz [--examples 20000] [--seed 0] [--only ROW] [--out FOLDER]
    python -m bench.fuzz --again FOLDER
"""

import argparse
import json
import os
import re
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz import verbs
from fuzz.run import Example, World
from hypothesis import HealthCheck, Phase, given, seed, settings

BATCH = 2000  # examples of all rows before their turn comes again


class Faults:
    """The distinct faults so far, each with its shortest example, kept in `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, {}

    def add(self, example: Example, cause: str, detail: str) -> None:
        size = sum(map(len, example.words)) + sum(len(content or b"") for content in example.files.values())
        name = re.sub(r"[^A-Za-z0-9]+", "-", cause)[:100].strip("-")
        times, smallest = self.seen.get(cause, (0, size + 1))
        self.seen[cause] = times + 1, min(size, smallest)
        if size < smallest:
            write(example, self.folder / name, cause, detail)
        if not times:
            print(f"\r{cause}\n    {example.verb}: harness {' '.join(example.words)[:160]!r}\n    {detail[:300]!r}")


def write(example: Example, folder: Path, cause: str, detail: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    about = {"verb": example.verb, "words": example.words, "encoding": example.encoding, "real": example.real}
    about["may_crash"] = example.may_crash
    removed = [name for name, content in example.files.items() if content is None]
    (folder / "example.json").write_text(json.dumps({**about, "removed": removed, "cause": cause, "detail": detail}))
    for name, content in example.files.items():
        if content is not None:
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def read(folder: Path) -> Example:
    about = json.loads((folder / "example.json").read_text())
    files: dict[str, Any] = dict.fromkeys(about["removed"])
    for path in (folder / "files").rglob("*"):
        if path.is_file():
            files[str(path.relative_to(folder / "files"))] = path.read_bytes()
    return Example(
        about["verb"], tuple(about["words"]), files, about["encoding"], tuple(about["real"]), about["may_crash"]
    )


def fuzz(at: World, count: int, number: int, only: str | None, found: Faults) -> None:
    """Examples of the rows in turns, so that a run that is ended early has had some of each."""
    start, done = time.monotonic(), 0

    def run(share: verbs.Share) -> None:
        @seed(number + done)
        @settings(max_examples=share.count, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(share.strategy)
        def batch(example: Example) -> None:
            nonlocal done
            done += 1
            for fault in at.run(example)[1]:
                found.add(example, fault.cause, fault.detail)
            if not done % 50:
                left = (time.monotonic() - start) / done * (count - done)
                print(f"\r{done} of {count}, {len(found.seen)} distinct faults, {left / 60:.0f} min left ", end="")

        batch()

    while done < count:
        for share in verbs.shares(at, min(BATCH, count)):
            if done < count and only in (None, share.name):
                run(share)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=verbs.NAMES, help="one row of the table")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--again", type=Path, help="run the example in this folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # A document that wants all memory fails here, not the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, resource.RLIM_INFINITY))
    with TemporaryDirectory() as folder:
        at, found = World(Path(folder)), Faults(options.out)
        if options.again:
            example = read(options.again)
            end, faults = at.run(example)
            print(f"harness {' '.join(map(repr, example.words))}\n{end.out[-2000:]}{end.err[-2000:]}\ncode {end.code}")
            for fault in faults:
                print(f"{fault.cause}: {fault.detail!r}")
            sys.exit(bool(faults))
        fuzz(at, options.examples, options.seed, options.only, found)
    for cause, (times, _) in sorted(found.seen.items()):
        print(f"{times:5} times  {cause}")
    print(f"{len(found.seen)} distinct faults; examples are in {options.out}/" if found.seen else "no fault")
    sys.exit(bool(found.seen))


if __name__ == "__main__":
    main()
