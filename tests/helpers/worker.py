"""A stand-in for harness.workers.serve, run as the executor runs the real one: JSON lines in, JSON lines out.

python tests/helpers/worker.py WORLD    WORLD is a JSON file: {"device": ..., "rates": ..., "trace": ..., "ends": {...}}

It reports the world's device, answers every trace with the world's, and ends each cell's job as "ends" says for its
model, precision, context and micro-batch ("tiny bf16 256 b4"), by default well. WORLD.log has a line for every
cell that was run, WORLD.visible the cards that it saw.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

NODE = "TTFT_BENCH_TEST_NODE"  # names a node of helpers/cluster.py; the world's "cards" has its device
OK = {
    "status": "ok",
    "reason": "",
    "load_s": 1.0,
    "params": 1000,
    "trainable_params": 10,
    "warmup_micro_s": [1.0],
    "warmup_optimizer_s": [0.1],
    "micro_s": [1.0, 1.01, 0.99, 1.0, 1.02, 0.98],
    "optimizer_s": [0.1],
    "losses": [2.0, 1.9],
    "memory": {"after_load": {"resident": 1}, "first_step": {"resident": 2}, "steady": {"resident": 3}},
    "seed": 0,
}
# FLOPs per token of a model of a million parameters, none of them of attention.
FLOPS = 1e9


def trace_of(key: dict, memory: dict, per_sequence: int = 0) -> dict:
    """A micro-step that is two products, forward and backward, of 1e9 FLOPs per token each; every sequence holds
    `per_sequence` bytes of activations."""
    dtype, tokens, batch = key["compute_dtype"], key["context"], key["recipe"]["micro_batch"]
    ops = [["product", backward, dtype, FLOPS * tokens * batch, 0.0, 1] for backward in (False, True)]
    memory = {"activations": per_sequence * batch, **memory}
    work = {"forward_linear": FLOPS, "forward_quadratic": 0, "backward_linear": FLOPS, "backward_quadratic": 0}
    counts = {"params": 1_000_000, "trainable": 1, "sequences": batch, "tokens": tokens}
    return {"ops": ops, "memory": memory, "work": work, **counts}


def nap(world: dict, seconds: float) -> None:
    """Sleeps for `seconds`, or where the world has "seconds" as long as it says now: a test may cut a nap short."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(min(0.05, seconds))
        with suppress(ValueError):  # it is being written
            if "seconds" in world:
                seconds = json.loads(Path(sys.argv[1]).read_text())["seconds"]


def solving(world: dict, log: Path, job: str, payload: dict):
    """The jobs of a run's worker: every task takes the world's "seconds", or those of "tasks", and ends as "ends" says:
    by default well, "kill", "kill once" (its first attempt), "hang" or "late" (0.3 s after its time). What is answered
    is one grid, all zeros, unless the world has its own "answers"."""
    if job.endswith(":count"):
        counted = {"examples": [100], "answer": 9.0}
        fits = [[sum(map(len, grid)) < payload["context"] for grid in task["test_inputs"]] for task in payload["tasks"]]
        return [
            {"id": task["id"], "questions": [100] * sum(fit), "unasked": fit.count(False), **counted}
            for task, fit in zip(payload["tasks"], fits, strict=True)
        ]
    if job.endswith(":load"):
        time.sleep(world.get("load", 0))
        if "refuse" in world:
            return {"error": world["refuse"]}
        if "unloadable" in world or payload["index"] in world.get("dead", []):
            raise RuntimeError(world.get("unloadable", "the card is lost"))
        return {"load_s": 0.0, "notes": []}
    task, attempt = payload["task"], payload["attempt"]
    with log.open("a") as f:
        f.write(f"{task} {attempt}\n")
    end = world.get("ends", {}).get(task, "ok")
    done = {
        "status": "ok", "reason": "", "started": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "votes": [[["000", payload["views"]]]], "views": payload["views"], "steps": 4, "train_s": 0.01,
        "decode_s": 0.01, "train_tokens": 400, "question_tokens": 200, "answer_tokens": 18, "cut": False,
        **world.get("answers", {}),
    }  # fmt: skip
    if end == "kill" or (end == "kill once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "hang":
        print(json.dumps({"event": "votes", **done}), flush=True)
        time.sleep(60)
    if end == "late":
        time.sleep(payload["cap_s"] + 0.3)
    if end == "hang in silence":
        time.sleep(60)
    own = world.get("tasks", {}).get(task)
    nap({} if own is not None else world, own if own is not None else world.get("seconds", 0))
    if end == "oom":
        return {**done, "status": "oom", "reason": "CUDA out of memory", "votes": []}
    return done


def tuning(world: dict, log: Path, payload: dict) -> dict:
    """The job of a fine-tune's worker: every arm takes the world's "seconds" and has a row with no task solved."""
    from harness.hardware.environment import versions
    from harness.records.arm import ArmResult, TaskScore, to_json
    from harness.records.stored import from_stored
    from harness.tune.config import ArmsJob

    job = from_stored(payload, ArmsJob)
    for arm in job.arms:
        with log.open("a") as f:
            f.write(f"{arm} on {os.environ.get(NODE, '')}\n")
        print(json.dumps({"event": "step", "arm": arm, "step": 1, "total": 2, "loss": 2.0}), flush=True)
        nap(world, world.get("seconds", 0))
        row = ArmResult.of(
            job.spec, arm, versions(), commit=None, started="2026-11-26T00:00:00+00:00", environment=job.environment,
            scores=tuple(TaskScore(task.id, *(0.0,) * 5) for task in job.tasks), step_losses=(2.0, 1.0), train_s=0.1,
        )  # fmt: skip
        print(json.dumps({"event": "row", "row": to_json(row)}), flush=True)
    return {"status": "ok", "reason": ""}


def answer(world: dict, log: Path, job: str, payload: dict):
    world["device"] = world.get("cards", {}).get(os.environ.get(NODE), world["device"])
    if job.endswith(":find_device"):
        return world["device"]
    if job.endswith(":run_arms"):
        return tuning(world, log, payload)
    if job.endswith(":report_device"):
        of_card = {name: world[name] for name in ("bandwidth", "environment") if name in world}
        return {"device": world["device"], "rates": world["rates"], **of_card}
    if job.endswith(":trace_job"):
        return world.get("trace") or trace_of(payload, world.get("memory", {}), world.get("per_sequence", 0))
    if job.startswith("harness.solve."):
        return solving(world, log, job, payload)
    cell = payload["cell"]
    batch = cell["recipe"]["micro_batch"]
    name = f"{cell['model']['name']} {cell['precision']} {cell['context']}{f' b{batch}' if batch > 1 else ''}"
    with log.open("a") as f:
        f.write(name + "\n")
    with log.with_suffix(".visible").open("a") as f:
        f.write(os.environ.get("CUDA_VISIBLE_DEVICES", "") + "\n")
    with log.with_suffix(".seconds").open("a") as f:
        f.write(json.dumps({key: value for key, value in payload.items() if key.endswith("_seconds")}) + "\n")
    end = world.get("ends", {}).get(name, "ok")
    print(json.dumps({"event": "phase", "phase": "load"}), flush=True)
    if end == "ok":
        nap(world, world.get("seconds", 0))
        return OK | world.get("measured", {})
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif end == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif end == "raise":
        raise RuntimeError("the kernel is broken")
    elif end == "hang":
        time.sleep(60)
    elif end == "heavy":
        return {
            **OK,
            "status": "oom",
            "reason": "too large to load",
            "memory": {"imported": {"resident": 1}},
        }
    elif end == "lost":
        return {**OK, "status": "crashed", "reason": "the card was lost (CUDA error: unspecified launch failure)"}
    return {**OK, "status": end, "reason": f"it was {end}"}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    for line in sys.stdin:
        world, request = json.loads(file.read_text()), json.loads(line)
        with file.with_suffix(".asked").open("a") as asked:
            asked.write(request["job"] + "\n")
        result = answer(world, file.with_suffix(".log"), request["job"], request["payload"])
        refused = isinstance(result, dict) and "error" in result
        refusal = {"event": "refused", "message": result["error"]} if refused else None
        print(json.dumps(refusal or {"event": "result", "result": result}), flush=True)
