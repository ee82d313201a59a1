"""The job that measures one cell, in a process of its own (see harness.workers.serve)."""

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from harness.catalog import precisions
from harness.catalog.accelerators import is_slice
from harness.errors import Unsupported, first_line
from harness.hardware import card_state
from harness.hardware.cpu_load import CpuMeter, own_seconds
from harness.hardware.device import synchronizer
from harness.hardware.peak_memory import PeakMemory
from harness.measure.arc_steps import ArcSteps
from harness.measure.timing import MIN_SECONDS, sample, sample_whole_steps, soak
from harness.records.cell import Cell
from harness.records.measurement import CardState
from harness.records.stored import from_stored, to_stored
from harness.train import distributed
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.device_errors import lost, ran_out, without_kernels
from harness.train.step import TrainingStep

_REPORT_EVERY_S = 1.0
_OTHERS_BYTES = 2 << 30  # on a card, above what a context and the libraries of this process take
_TOO_SMALL = "; the weights alone do not fit: try --precisions int4, or a smaller model"
Emit = Callable[..., None]


def measure_cell(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measures {cell, sample_seconds, seed, soak_seconds, arc_seconds}: those two may be missing, which is none.

    Returns the measured fields of a harness.records Measurement.

    A model that cannot be built or trained here, and memory that runs out, are a status with a reason.
    """
    cell = from_stored(payload["cell"], Cell)
    # What the card holds is read before this process has a context there, which `init` may make.
    memory = PeakMemory(distributed.own_device(torch.device(cell.device)), is_slice(cell.device_name))
    result: dict[str, Any] = {"status": "ok", "reason": "", "memory": {}, "seed": payload["seed"]}
    try:
        distributed.init(torch.device(cell.device))
        _measure(cell, payload, memory, result, emit)
    except Unsupported as problem:
        result |= {"status": "unsupported", "reason": str(problem)}
    except Exception as problem:
        if ran_out(problem):
            weights = "" if "after_load" in result["memory"] else _TOO_SMALL
            result |= {"status": "oom", "reason": first_line(problem) + weights + _crowded(memory.device)}
            with suppress(RuntimeError):
                result["memory"]["failed"] = memory.read()
        elif sentence := lost(problem):
            result |= {"status": "crashed", "reason": sentence}
        elif sentence := without_kernels(problem):
            result |= {"status": "unsupported", "reason": sentence}
        elif isinstance(problem, RuntimeError) and "not implemented for" in str(problem):
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
    result["kernels"], result["adapted"], result["notes"] = (
        loaded.kernels,
        loaded.adapted,
        (*loaded.notes, *memory.notes),
    )
    result["memory"]["after_load"] = memory.read()
    loaded = models.confirmed(loaded, cell.recipe, device, cell.context)
    result["kernels"] = loaded.kernels
    result["notes"] = (*result["notes"], *models.attention_ran(loaded.model, device, cell.context))
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

    arc = ArcSteps(step, cell, vocab_size, seed) if payload.get("arc_seconds") else None
    functions = (micro_step, step.update, arc.run if arc else step.update)
    memory.reset()
    if distributed.rank():
        # Another process's share of the same steps: the first one leads and measures.
        distributed.follow(*functions)
        result["memory"]["steady"] = memory.read()
        distributed.all_gather(result["memory"])
        return
    # What others use of the CPU; the process that started this one, and all that it started, are the program's own.
    load = CpuMeter(own=lambda: own_seconds(os.getppid()))
    run_micro_step, run_update, run_arc_step = distributed.lead(*functions)
    card: list[CardState] = []

    def settle(work: Callable[[], None]) -> float:
        seconds = 0.0
        if device.type == "cuda":
            read = partial(card_state.read, device)
            seconds = soak(work, read, clock=time.perf_counter, max_seconds=payload.get("soak_seconds", 0.0))
            card.append(read())
        load.start()
        return seconds

    # The memory of the first step (which makes the optimiser's state) is read apart from the steady one.
    samples = sample(
        run_micro_step,
        run_update,
        wait=wait,
        clock=time.perf_counter,
        micro_steps_per_step=cell.recipe.micro_steps_per_step,
        max_seconds=payload["sample_seconds"],
        min_seconds=MIN_SECONDS[device.type],
        settle=settle,
        after_first_step=first_step_done,
        on_sample=on_sample,
    )
    if card:
        card.append(card_state.read(device))
    result["card"] = to_stored(tuple(card))
    others = load.read()
    result |= {"others_cpu": round(others.others, 3), "steal": round(others.stolen, 3)}
    result["memory"]["steady"] = memory.read()
    # After what is kept of memory: a fine-tune packs as much as fits.
    if arc:
        timed = partial(sample_whole_steps, run_arc_step, wait=wait, clock=time.perf_counter, on_sample=on_sample)
        result |= arc.measured(timed, samples.micro_s, payload["arc_seconds"])
        result["notes"] = (*result["notes"], *arc.packing.notes)
    distributed.stop()
    result["memory"] = _largest(distributed.all_gather(result["memory"]))
    result |= vars(samples)
    result["losses"] = [losses[0].item(), losses[-1].item()]


def _largest(memories: list[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """The most of every phase and kind among the processes: each has a card of its own, and the fullest one decides."""
    return {
        phase: {kind: max(memory[phase].get(kind, 0) for memory in memories if phase in memory) for kind in kinds}
        for phase, kinds in memories[0].items()
    }


def _crowded(device: torch.device) -> str:
    """What to add to the reason where much of the card's memory is not this process's."""
    if device.type != "cuda":
        return ""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # after some errors the card answers nothing more
        return ""
    others = total - free - torch.cuda.memory_reserved(device)
    if others < _OTHERS_BYTES:
        return ""
    return f"; other processes hold {others / 2**30:.1f} GiB of this card: end them, see nvidia-smi, and give --fresh"
