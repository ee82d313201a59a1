"""Cells, measurements and results of one small model, with samples that a test can reckon with."""

from dataclasses import replace

from harness.records.arm import ArmResult, Coverage, CurvePoint, TaskScore, TuneSpec
from harness.records.cell import TUNING_RULE, Cell, ModelSpec, Recipe
from harness.records.imported import ImportedRun
from harness.records.measurement import FlopCount, MatmulSpeed, Measurement

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}
RECIPE = Recipe(lora_r=4, sequences_per_step=2, learning_rate=1e-2)  # of fine-tunes
FP32 = MatmulSpeed(60e9, 60e9, True)
RECIPE = Recipe(lora_r=4, sequences_per_step=2, learning_rate=1e-2)  # of a fine-tune of few steps


def cell(**changes) -> Cell:
    spec = ModelSpec("tiny", TINY, 4096, params_m=1.0)
    return replace(Cell(spec, "fp32", "fp32", 1024, Recipe(), "random", "cpu", "a CPU"), **changes)


def row(micro_s=(1.0,) * 12, status="ok", **changes) -> Measurement:
    """A measured row: by default 12 micro-steps of a second, updates of nothing, a gigabyte at the peak."""
    fields = {
        "key": f"k{abs(hash(repr((micro_s, changes)))):x}",
        "cell": cell(),
        "status": status,
        "rate": FP32,
        "work": FlopCount(1e9, 1e5, 1e9, 2e5),
        "params": 1_000_000,
        "device_total_bytes": 8 << 30,
    }
    if status == "ok":
        fields |= {
            "load_s": 0.0,
            "warmup_micro_s": (1.0,),
            "warmup_optimizer_s": (0.0,),
            "micro_s": tuple(micro_s),
            "optimizer_s": (0.0,),
            "losses": (2.0, 1.0),
            "memory": {"after_load": {"resident": 1 << 29}, "steady": {"resident": 1 << 30}},
        }
    return Measurement(**(fields | changes))


def imported_run(key: str = "i", step_s: float = 1.0, **changes) -> ImportedRun:
    """A run on a T4 that somebody's log told of: 30 steps of 16 sequences of 1024 tokens."""
    made = cell(precision="fp16", compute_dtype="fp16", device="cuda", device_name="t4", **changes)
    return ImportedRun(key=key, cell=made, step_s=step_s, tokens_per_step=16 * 1024.0, steps=30, source="train.log")


def result(
    right: int, tasks: int = 10, steps: int = 64, arm: str = "n-1", decode_s: float = 0.0, **changes
) -> ArmResult:
    """An arm's result on tasks t0, t1, ... of which the first `right` are solved; by default of `row()`'s model.

    `changes` are fields of its spec, or of the result where it has such a field.
    """
    spec = {
        "model": cell().model,
        "weights": "random",
        "precision": "fp32",
        "compute_dtype": "fp32",
        "device": "cpu",
        "device_name": "a CPU",
        "recipe": Recipe(),
        "dataset": "made",
        "tasks": tuple(f"t{i}" for i in range(tasks)),
        "steps": steps,
        "context": 1024,
        "encoding": "rows",
        "views": 2,
        "seed": 0,
        "curve": False,
        "scope": "shared",
    }
    fields = {
        "versions": {},
        "commit": None,
        "started": "2025-01-01T00:00:00+00:00",
        "coverage": Coverage(tasks, tasks, 3 * tasks, 3 * tasks),
        "scores": tuple(TaskScore(f"t{i}", *(float(i < right),) * 5) for i in range(tasks)),
        "attempts": {},
        "step_losses": tuple(2.0 - 0.01 * i for i in range(steps)),
        "answer_losses": ((0.5, 12),) * tasks,
        "train_s": 0.5 * steps,
        "decode_s": decode_s,
        "used": 16 * steps,
        "too_long": 0,
        "untrained": 0,
        "questions": 2 * tasks,
        "skipped": 0,
    }
    for name, value in changes.items():
        (spec if name in spec else fields)[name] = value
    fields["spec"] = TuneSpec(**spec)
    return ArmResult(**{"key": fields["spec"].key(arm, {}), "arm": arm, "rule": TUNING_RULE, **fields})


def curve(tasks: int, *right: int, first: int = 8) -> tuple[CurvePoint, ...]:
    """Checkpoints at `first` steps, twice as many, ... after which so many of the tasks were right; the loss falls."""
    return tuple(
        CurvePoint(first * 2**i, 2.0 - 0.1 * i, (1.0,) * n + (0.0,) * (tasks - n)) for i, n in enumerate(right)
    )
