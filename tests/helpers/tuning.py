"""What the tests of fine-tuning share: a spec of few steps, and an arm that is watched and may be stopped."""

import json
from dataclasses import replace

import torch
from helpers.records import RECIPE

from harness.arc import arms
from harness.arc.dataset import TrainingSequences
from harness.arc.prompt import PromptFormat
from harness.catalog import model_folder
from harness.hardware.info import Device, DeviceReport
from harness.records.arm import TuneSpec
from harness.records.measurement import MatmulSpeed
from harness.records.stored import to_stored
from harness.train.packing import Packing, PackSetting
from harness.train.step import TrainingStep
from harness.tune import finetune, run
from harness.tune.checkpoint import Checkpointer
from harness.tune.config import TuneConfig
from harness.tune.runner import ArmRunner
from harness.workers.look import FIND, REPORT
from harness.workers.process import Outcome
from harness.workers.serve import job_named

STEPS = 8


def spec_of(folder, tasks, **changes):
    fields = {
        "model": folder and model_folder.from_folder(folder),
        "weights": str(folder),
        "precision": "fp32",
        "compute_dtype": "fp32",
        "device": "cpu",
        "device_name": "a CPU",
        "recipe": RECIPE,
        "dataset": "made",
        "tasks": tuple(task.id for task in tasks),
        "steps": STEPS,
        "context": 512,
        "encoding": "rows",
        "views": 2,
        "seed": 0,
    }
    return TuneSpec(**(fields | changes))


def fine_tuned(model, tokenizer, tasks, recipe, steps, *, arm="n-1", context=1024):
    """What `finetune.tune` gives for an fp32 model on the CPU, and the sequences with their counts."""
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=context)
    sequences = TrainingSequences(arms.ARMS[arm].stream(tasks, 0), prompts)
    step = TrainingStep(model, recipe, "fp32", torch.device("cpu"))
    return finetune.tune(step, sequences, steps, packing=Packing(model, PackSetting(context))), sequences


class Listener:
    """An observer of a fine-tune that keeps what is said."""

    def __init__(self, on_step=lambda *_: None):
        self.notes, self.step = [], on_step
        self.note = self.notes.append

    def answers(self, done, total):
        pass


class InProcess:
    """An executor that runs jobs in this process, their payloads and events through JSON; it has a CPU to report."""

    on_this_machine = True
    report = DeviceReport(Device("cpu", "a CPU", 8 << 30), {"fp32": MatmulSpeed(1e12, 1e12, True)})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def ask(self, job, payload):
        return to_stored({FIND: self.report.device, REPORT: self.report}[job])

    def run(self, job, payload, limits, on_event=lambda event: None, processes=1):
        def emit(event, **fields):
            on_event(json.loads(json.dumps({"event": event, **fields})))

        return Outcome("ok", "", job_named(job)(json.loads(json.dumps(payload)), emit))


def arms_of(spec, tasks, solutions, folder, names="n-1", on_step=lambda *_: None, **more):
    """The rows of the arms, and what was said."""
    shared = ("model", "weights", "recipe", "dataset", "steps", "context", "views", "precision", "encoding", "scope")
    config = TuneConfig(
        **{name: getattr(spec, name) for name in (*shared, "too_long", "curve", "seed")},
        tasks=tasks,
        solutions=solutions,
        arms=arms.choose(names),
        results=folder,
        **more,
    )
    listener = Listener(on_step)
    return run.run(config, listener, InProcess()).rows, listener.notes


# Of an outcome: what no two runs have in common.
UNTIMED = dict.fromkeys(("train_s", "decode_s", "watched_s", "others_core_s"), 0.0)


def timeless(row):
    """A row without what no two runs have in common."""
    return replace(row, started="", train_s=0.0, decode_s=0.0, cores_taken=None)


class Stopped(Exception):
    pass


def stop_at(number):
    seen = []

    def on_step(arm, step, total, loss):
        seen.append(step)
        if step == number:
            raise Stopped

    return on_step, seen


class Watched:
    """An ArmRunner and its arm, with the adapter's values after every step; `stop` ends it at that one."""

    def __init__(self, spec, tasks, solutions, path, every_s, stop=None, arm="n-1"):
        self.steps, self.adapters, self.notes = [], [], []
        self.runner = ArmRunner(spec, tasks, {name: solutions[name] for name in spec.tasks})

        def on_step(arm, step, total, loss):
            if step == stop:
                raise Stopped
            self.steps.append(step)
            self.adapters.append(self.runner.adapter.values())

        checkpointer = Checkpointer(path, self.notes.append, every_s=every_s)
        try:
            self.outcome = self.runner.run(arms.ARMS[arm], checkpointer, on_step)
        except Stopped:
            self.outcome = None

    def same_end(self, other):
        """Whether this one, which began later, did what `other` did from there on, to the bit."""
        count = len(self.steps)
        assert other.steps[-count:] == self.steps
        for mine, theirs in zip(self.adapters, other.adapters[-count:], strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert replace(self.outcome, **UNTIMED) == replace(other.outcome, **UNTIMED)
