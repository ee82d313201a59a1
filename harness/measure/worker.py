"""One cell in a process of its own: python -m harness.measure.worker, the job as one JSON line on its input.

Says what happens as JSON lines on its output, the last one being the result. Libraries that print do so to stderr.
The input stays open as long as the sweep lives; when it closes, this process ends at once, so that a killed sweep
leaves nothing running.
"""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.catalog import precisions
from harness.measure.timing import sample
from harness.records.cell import Cell
from harness.records.stored import from_stored

_SAY_EVERY_S = 1.0


def main() -> None:
    line = sys.stdin.readline()
    job = json.loads(line)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    _be_killed_first()

    def say(**event: Any) -> None:
        out.write(json.dumps(event) + "\n")

    others = _start_others(line, job["cell"]["recipe"]["processes"])
    say(event="result", **run(job, say))
    for other in others:
        other.kill()


def _start_others(line: str, processes: int) -> list[subprocess.Popen]:
    """The further processes of a cell on several cards; they end when this one does, for it holds their input."""
    if processes == 1 or "RANK" in os.environ:
        return []
    from harness.train import distributed

    port, others = distributed.free_port(), []
    for number in range(1, processes):
        environment = os.environ | distributed.rank_environment(number, processes, port)
        command = [sys.executable, "-m", "harness.measure.worker"]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True)
        other.stdin.write(line)
        other.stdin.flush()
        others.append(other)
    os.environ.update(distributed.rank_environment(0, processes, port))
    return others


def run(job: dict[str, Any], say) -> dict[str, Any]:
    """Measures `job`: {cell, sample_seconds, seed}. Returns the measured fields of a harness.records.Measurement."""
    say(event="phase", phase="import")
    import torch

    from harness.errors import Unsupported
    from harness.hardware.device import synchronizer
    from harness.hardware.peak_memory import PeakMemory
    from harness.train import distributed
    from harness.train import model as models
    from harness.train.batches import random_batch
    from harness.train.step import TrainingStep

    cell = from_stored(job["cell"], Cell)
    device = distributed.init(torch.device(cell.device))
    memory, wait = PeakMemory(device), synchronizer(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    out_of_memory = (torch.OutOfMemoryError, MemoryError)
    seen: dict[str, Any] = {"status": "ok", "reason": "", "memory": {}, "seed": job["seed"]}
    try:
        say(event="phase", phase="load")
        seen["memory"]["imported"] = memory.read()
        memory.reset()
        start = time.perf_counter()
        loaded = models.load(
            cell.model,
            precisions.find(cell.precision),
            cell.compute_dtype,
            cell.recipe,
            cell.weights,
            device,
            job["seed"],
        )
        wait()
        seen["load_s"] = time.perf_counter() - start
        seen["params"], seen["trainable_params"] = loaded.params, loaded.trainable_params
        seen["kernels"] = loaded.kernels
        seen["memory"]["after_load"] = memory.read()
        gc.collect()

        step = TrainingStep(loaded.model, cell.recipe, cell.compute_dtype, device)
        batch = random_batch(
            loaded.model.config.get_text_config().vocab_size, cell.context, cell.recipe, device, job["seed"]
        )
        losses: list[torch.Tensor] = []
        said = 0.0

        def micro_step() -> None:
            losses.append(step.micro_step(batch))

        def first_step_done() -> None:
            seen["memory"]["first_step"] = memory.read()
            memory.reset()

        def on_sample(phase: str, seconds: float) -> None:
            nonlocal said
            if time.perf_counter() - said >= _SAY_EVERY_S:
                said = time.perf_counter()
                say(event="phase", phase=phase, micro_step_s=seconds)

        memory.reset()
        if not distributed.is_rank_zero():
            distributed.follow(micro_step, step.update)
            return seen
        samples = sample(
            *distributed.lead(micro_step, step.update),
            wait=wait,
            clock=time.perf_counter,
            micro_steps_per_step=cell.recipe.micro_steps_per_step,
            max_seconds=job["sample_seconds"],
            after_first_step=first_step_done,
            on_sample=on_sample,
        )
        distributed.stop()
        seen["memory"]["steady"] = memory.read()
        seen |= vars(samples)
        seen["losses"] = [losses[0].item(), losses[-1].item()]
    except Unsupported as problem:
        seen |= {"status": "unsupported", "reason": str(problem)}
    except out_of_memory as problem:
        seen |= {"status": "oom", "reason": _first_line(problem), "memory": {**seen["memory"], "failed": memory.read()}}
    except RuntimeError as problem:
        if _ran_out(problem, device):
            seen |= {"status": "oom", "reason": _first_line(problem)}
        elif "not implemented for" in str(problem):
            seen |= {"status": "unsupported", "reason": _first_line(problem)}
        else:
            raise
    return seen


def _ran_out(problem: RuntimeError, device) -> bool:
    """Whether memory is what a plain RuntimeError is about.

    The CPU's allocator, cuBLAS and the driver have no exception of their own for it, and transformers wraps one that
    happens while it quantises; the caching allocator counts those.
    """
    text = str(problem).lower()
    if any(sign in text for sign in ("can't allocate memory", "out of memory", "alloc_failed")):
        return True
    import torch

    wrapped = "automatic conversion" in text and device.type == "cuda"
    return wrapped and torch.cuda.memory_stats(device).get("num_ooms", 0) > 0


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:300]


def _end_with_the_sweep() -> None:
    sys.stdin.read()
    os._exit(1)


def _be_killed_first() -> None:
    """If the system runs out of memory it should end this process, not the sweep (proc(5), oom_score_adj)."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux


if __name__ == "__main__":
    main()
