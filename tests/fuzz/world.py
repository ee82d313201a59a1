"""A world in a folder: a catalogue, a model with weights, tasks, a record, caches; and who answers the workers' jobs.

What measures or trains is answered here at once, by `answer`. What only reads (a tokenizer, a config) is done by the
real job in a forked process, and so is a whole fine-tune where a row of the table says so.
"""

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from helpers import gguf_files, logs
from helpers.records import TINY
from helpers.tasks import made_tasks, write_tasks
from helpers.worker import OK, trace_of

from harness.errors import UserError
from harness.records.arm import ArmResult, Coverage, CurvePoint, TaskScore, to_json
from harness.records.stored import from_stored
from harness.solve.config import LOAD, SOLVE
from harness.tune.config import ArmsJob
from harness.workers import look, pool
from harness.workers.local import AskFailed, LocalExecutor
from harness.workers.process import Outcome
from harness.workers.serve import job_named

CPU = {"id": "cpu", "name": "a CPU", "total_bytes": 8 << 30, "uuid": "cpu", "capability": None, "others": []}
RATES = {
    "fp32": {"forward": 1e12, "backward": 1e12, "native": True},
    "bf16": {"forward": 4e12, "backward": 4e12, "native": True},
    "fp16": {"forward": 1e9, "backward": 1e8, "native": False},
}
CATALOGUE = {
    "defaults": {
        "model": "bare",
        "precisions": ["fp32"],
        "contexts": {"cuda": [64, 128], "cpu": [64, 128]},
        "budget_hours": 12,
        "steps": 30,
        "test_tasks": 10,
        "sample_seconds": {"cuda": 3, "cpu": 3},
        "cap_seconds": {"cuda": 300, "cpu": 300},
    },
    "recipe": {
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "lora_targets": "attention",
        "sequences_per_step": 2,
        "micro_batch": 1,
        "learning_rate": 0.001,
        "gradient_checkpointing": "none",
        "answer_share": 0.12,
    },
    "ttft": {"set": "tasks", "grid_limit": 30, "tasks": 2, "steps": 4, "context": 256, "views": 2},
    "models": {
        "bare": {
            "window": 256,
            "params_m": 0.1,
            "aliases": ["b"],
            "ttft": {"learning_rate": 0.002},
            "architecture": {name: value for name, value in TINY.items() if name != "max_position_embeddings"},
        },
        "other": {
            "window": 4096,
            "hub_id": "nobody/other",
            "architecture": {name: value for name, value in TINY.items() if name != "max_position_embeddings"},
        },
    },
}
CARD = {"name": "mine", "memory": "24 GiB", "bandwidth": "300 GB/s", "fp32": "30 TFLOP/s", "fp16": "65 TFLOP/s",
        "bf16": "emulated", "capability": "8.9"}  # fmt: skip
MODEL = "m"  # the folder with weights
GGUF = "small.gguf"
RESULTS = "results/a-cpu"
EARLIER = "earlier"
PUBLISHED = "published.csv"
RECIPE = "run.yaml"  # what pick chose
IMPORT = ("--model", "bare", "--gpu", "t4", "--precision", "fp16")
SOLVED = ("solve", f"./{MODEL}", "--tasks", "tasks", "--results", "solved", "--steps", "4", "--budget-hours", "1",
          "--decode", "dfs", "--select", "score")  # fmt: skip
TUNE = ("ttft", f"./{MODEL}", "--arms", "n-1", "--precision", "fp32", "--steps", "4", "--results", "tuned")


def make(folder: Path) -> None:
    """Fills `folder` but for record and caches, which the verbs themselves write (see fuzz.verbs.base)."""
    from harness.tiny import model as tiny

    (folder / "models.yaml").write_text(yaml.safe_dump(CATALOGUE, sort_keys=False))
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD, sort_keys=False))
    tasks, solutions = made_tasks(3)
    write_tasks(folder / "tasks", tasks, solutions)
    whole = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "tasks").iterdir())}
    challenges = {
        name: {**task, "test": [{"input": pair["input"]} for pair in task["test"]]} for name, task in whole.items()
    }
    outputs = {name: [pair["output"] for pair in task["test"]] for name, task in whole.items()}
    logs.write(folder / "logs")
    (folder / "tokens.json").write_text(json.dumps({"t0": 40, "t1": [50, 60]}))
    steps = (f"bare,fp32,fp32,{context},1.5,0.5,t4,somebody" for context in (64, 128))
    heading = "model,precision,compute,context,ten_steps_min,rounding_min,accelerator,source"
    (folder / PUBLISHED).write_text("\n".join([heading, *steps, ""]))
    (folder / "kaggle_challenges.json").write_text(json.dumps(challenges))
    (folder / "kaggle_solutions.json").write_text(json.dumps(outputs))
    tiny.save(tiny.new(seed=0, hidden=32, layers=2, heads=2), folder / MODEL)
    gguf_files.write(folder / GGUF, gguf_files.random_model())


# ---- The workers' jobs


def device(payload: Any, emit: Callable[..., None]) -> Any:
    if payload["requested"] not in ("auto", "cpu"):
        raise UserError(f"no device {payload['requested']!r} here; use --device cpu")
    return CPU


def device_report(payload: Any, emit: Callable[..., None]) -> Any:
    return {"device": CPU, "rates": RATES}


def trace(payload: Any, emit: Callable[..., None]) -> Any:
    transient = 1000 * payload["context"]
    return trace_of(payload, {"weights": 4_000_000, "adapters": 40_000, "activations": transient, "logits": transient})


def cell(payload: Any, emit: Callable[..., None]) -> Any:
    emit("phase", phase="load")
    return {**OK, "memory": {"after_load": {"resident": 1 << 29}, "steady": {"resident": 1 << 30}}}


def arms(payload: Any, emit: Callable[..., None]) -> Any:
    """An arm's row, as long as the real one, of scores that were never computed."""
    job = from_stored(payload, ArmsJob)
    for name in job.arms:
        from harness.hardware.environment import versions

        steps = 0 if name == "baseline" else min(job.spec.steps, 100)
        row = ArmResult.of(
            job.spec,
            name,
            versions(),
            commit=None,
            started="2026-01-01T00:00:00+00:00",
            coverage=Coverage(4, 4, 4, 4),
            scores=tuple(TaskScore(id, *(float(i % 2),) * 5) for i, id in enumerate(job.spec.tasks)),
            attempts={id: (("12\n34", "34\n12"),) for id in job.spec.tasks},
            step_losses=tuple(2.0 - 0.01 * i for i in range(steps)),
            answer_losses=((0.5, 12),),
            train_s=1.0 * steps,
            decode_s=1.0,
            used=steps,
            questions=4,
            curve_points=tuple(CurvePoint(n, 1.0, (1.0,) * len(job.spec.tasks)) for n in (1, 2, 4) if n <= steps),
        )
        emit("step", arm=name, step=steps, total=steps, loss=1.0)
        emit("row", row=to_json(row))
    return {"status": "ok", "reason": ""}


def solved(job: dict, emit: Any) -> dict:
    """A task's two answers, the likelier one with fewer votes."""
    return {
        "status": "ok", "reason": "", "started": "2026-11-26T00:00:00+00:00", "scores": [[-2.0, -1.0]],
        "votes": [[["000", job["views"]], ["111", 1]]], "score_s": 0.1,
        "views": job["views"], "steps": 4, "train_s": 0.1, "decode_s": 0.1, "train_tokens": 400,
        "question_tokens": 200, "answer_tokens": 18, "cut": False,
    }  # fmt: skip


# Answered at once; a job that comes later joins by a row, or is run for real.
FAKES = {
    look.FIND: device,
    look.REPORT: device_report,
    "harness.predict.tracer:trace_job": trace,
    "harness.measure.worker:measure_cell": cell,
    "harness.tune.experiment:run_arms": arms,
    LOAD: lambda job, emit: {"load_s": 0.1, "notes": []},
    SOLVE: solved,
}
TRAINS = "harness.tune.experiment:run_arms"


def kernel_timings(*_: Any) -> Any:
    """Instead of measuring, which compiles."""
    return {"attention": {"blocks": 0.001, "sdpa": 0.002}, "pointwise": {"plain": 0.001, "compiled": 0.002}}


def place_of(problem: BaseException) -> str:
    """The innermost function of this program that the exception left."""
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if "/harness/" in f.filename]
    return f"{frames[-1].filename.rpartition('/harness/')[2]}:{frames[-1].name}" if frames else "nowhere"


class JobDied(Exception):
    """A job ended as no job should: the message is its last line, or its signal."""


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def answer(job: str, payload: Any, on_event: Callable[[dict], None], real: tuple[str, ...]) -> Any:
    """What the worker answers: the fake's result, or that of the real job in a process of its own."""
    payload = _through_json(payload)

    def emit(event: str, **fields: Any) -> None:
        on_event(_through_json({"event": event, **fields}))

    if job in FAKES and job not in real:
        try:
            return _through_json(FAKES[job](payload, emit))
        except ValueError as problem:  # a payload that the real job would refuse, too
            raise JobDied(f"{job}: {type(problem).__name__} at {place_of(problem)}: {problem}") from None
    return _forked(job, payload, on_event)


def _forked(job: str, payload: Any, on_event: Callable[[dict], None], within_s: float = 60.0) -> Any:
    """The real job in a fork of this process, whose imports it shares; its events through a pipe, as JSON lines."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads only wait here
        child = os.fork()
    if not child:
        os.close(read)
        _serve(job, payload, write)
    os.close(write)
    buffer, until = b"", time.monotonic() + within_s
    try:
        while select.select([read], [], [], max(0.0, until - time.monotonic()))[0]:
            if not (part := os.read(read, 1 << 16)):
                break
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                event = json.loads(line)
                match event["event"]:
                    case "result":
                        return event["result"]
                    case "refused":
                        raise UserError(event["message"])
                    case "died":
                        raise JobDied(f"{job}: {event['message']}")
                on_event(event)
        else:
            raise JobDied(f"{job}: hangs")
        raise JobDied(f"{job}: ended by a signal")
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(job: str, payload: Any, write: int) -> None:
    """As harness.workers.serve does, for one job; never returns."""
    try:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, resource.RLIM_INFINITY))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        sys.stdout = sys.stderr = os.fdopen(nowhere, "w")
        warnings.simplefilter("ignore")

        def emit(event: str, **fields: Any) -> None:
            line = json.dumps({"event": event, **fields}).encode() + b"\n"
            while line:
                line = line[os.write(write, line) :]

        import torch

        torch.set_num_threads(1)
        try:
            emit("result", result=job_named(job)(payload, emit))
        except UserError as problem:
            emit("refused", message=str(problem))
        except BaseException as problem:
            lines = f"{type(problem).__name__} at {place_of(problem)}: {problem}".splitlines()
            emit("died", message=lines[0][:300])
    finally:
        os._exit(0)


class Pool(pool.Pool):
    """harness.workers.pool.Pool without processes, each job answered when it is sent."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.answers: list[tuple[int, Any]] = []

    def start(self, worker: int) -> None:
        pass

    end = start

    def send(self, worker: int, job: str, payload: Any) -> None:
        try:
            self.answers.append((worker, {"event": "result", "result": answer(job, payload, lambda event: None, ())}))
        except JobDied as problem:
            self.answers.append((worker, Outcome("crashed", str(problem))))

    def events(self, wait_s: float) -> list[tuple[int, Any]]:
        answers, self.answers = self.answers, []
        return answers


@contextmanager
def workers(real: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """LocalExecutor's jobs answered by `answer`. Gives the messages of real jobs that died without an answer."""
    died: list[str] = []

    def run(self, job, payload, limits, on_event=lambda event: None, processes=1):
        try:
            return Outcome("ok", "", answer(job, payload, on_event, real))
        except JobDied as problem:
            died.append(str(problem))
            return Outcome("crashed", f"{problem}; see {limits.log.name}")

    def ask(self, job, payload):
        try:
            return answer(job, payload, lambda event: None, real)
        except JobDied as problem:
            died.append(str(problem))
            raise AskFailed(f"{problem}; see log") from None

    fakes = mock.patch.object(LocalExecutor, "run", run), mock.patch.object(LocalExecutor, "ask", ask)
    with fakes[0], fakes[1], mock.patch("harness.solve.run.Pool", Pool):
        yield died
