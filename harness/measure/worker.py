"""The job that measures one cell, in a process of its own (see harness.workers.serve)."""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from harness.catalog import precisions
from harness.errors import Unsupported, first_line
from harness.hardware.cpu_load import CpuMeter, own_seconds
from harness.hardware.device import synchronizer
from harness.hardware.peak_memory import PeakMemory
from harness.measure.timing import sample
from harness.records.cell import Cell
from harness.records.stored import from_stored
from harness.train import distributed
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.step import TrainingStep

_REPORT_EVERY_S = 1.0
Emit = Callable[..., None]


def measure_cell(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measures {cell, sample_seconds, seed}. Returns the measured fields of a harness.records Measurement.

    A model that cannot be built or trained here, and memory that runs out, are a status with a reason.
    """
    cell = from_stored(payload["cell"], Cell)
    device = distributed.init(torch.device(cell.device))
    memory = PeakMemory(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    result: dict[str, Any] = {"status": "ok", "reason": "", "memory": {}, "seed": payload["seed"]}
    try:
        _measure(cell, payload, memory, result, emit)
    except Unsupported as problem:
        result |= {"status": "unsupported", "reason": str(problem)}
    except (torch.OutOfMemoryError, MemoryError) as problem:
        result |= {"status": "oom", "reason": first_line(problem)}
        result["memory"]["failed"] = memory.read()
    except RuntimeError as problem:
        if _ran_out(problem, device):
            result |= {"status": "oom", "reason": first_line(problem)}
        elif "not implemented for" in str(problem):
            result |= {"status": "unsupported", "reason": first_line(problem)}
        else:
            raise
    return result


def _measure(cell: Cell, payload: dict[str, Any], memory: PeakMemory, result: dict[str, Any], emit: Emit) -> None:
    """Loads the cell's model and times its step; what is measured goes into `result` at once, for the rest may fail."""
    device, seed = memory.device, payload["seed"]
    wait = synchronizer(device)
    # What the imports hold is noted apart: it is no part of the model.
    emit("phase", phase="load")
    result["memory"]["imported"] = memory.read()
    memory.reset()
    start = time.perf_counter()
    precision = precisions.find(cell.precision)
    loaded = models.load(cell.model, precision, cell.compute_dtype, cell.recipe, cell.weights, device, seed)
    wait()
    result["load_s"] = time.perf_counter() - start
    result["params"], result["trainable_params"] = loaded.params, loaded.trainable_params
    result["kernels"], result["adapted"], result["notes"] = loaded.kernels, loaded.adapted, loaded.notes
    result["memory"]["after_load"] = memory.read()
    gc.collect()

    # Random tokens cost what real ones do.
    step = TrainingStep(loaded.model, cell.recipe, cell.compute_dtype, device)
    vocab_size = loaded.model.config.get_text_config().vocab_size
    batch = random_batch(vocab_size, cell.context, cell.recipe, device, seed)
    losses: list[torch.Tensor] = []
    reported = 0.0

    def micro_step() -> None:
        losses.append(step.micro_step(batch))

    def first_step_done() -> None:
        result["memory"]["first_step"] = memory.read()
        memory.reset()

    def on_sample(phase: str, seconds: float) -> None:
        nonlocal reported
        if time.perf_counter() - reported >= _REPORT_EVERY_S:
            reported = time.perf_counter()
            emit("phase", phase=phase, micro_step_s=seconds)

    memory.reset()
    if distributed.rank():
        # Another process's share of the same steps: the first one leads and measures.
        distributed.follow(micro_step, step.update)
        return
    # What others use of the CPU; the process that started this one, and all that it started, are the program's own.
    load = CpuMeter(own=lambda: own_seconds(os.getppid()))
    # The memory of the first step (which makes the optimiser's state) is read apart from the steady one.
    samples = sample(
        *distributed.lead(micro_step, step.update),
        wait=wait,
        clock=time.perf_counter,
        micro_steps_per_step=cell.recipe.micro_steps_per_step,
        max_seconds=payload["sample_seconds"],
        after_first_step=first_step_done,
        on_sample=on_sample,
    )
    others = load.read()
    result |= {"others_cpu": round(others.others, 3), "steal": round(others.stolen, 3)}
    distributed.stop()
    result["memory"]["steady"] = memory.read()
    result |= vars(samples)
    result["losses"] = [losses[0].item(), losses[-1].item()]


def _ran_out(problem: RuntimeError, device: torch.device) -> bool:
    """Whether a plain RuntimeError means that memory ran out.

    The CPU's allocator, cuBLAS and the driver have no exception of their own for it, and transformers wraps one that
    happens while it quantises; the caching allocator counts those.
    """
    text = str(problem).lower()
    if any(sign in text for sign in ("can't allocate memory", "out of memory", "alloc_failed")):
        return True
    wrapped = "automatic conversion" in text and device.type == "cuda"
    return wrapped and torch.cuda.memory_stats(device).get("num_ooms", 0) > 0
