"""A result of PEFT's method_comparison: one JSON file per experiment."""

from typing import Any

from harness.logs.logged import LoggedRun, count, mapping, positive, text
from harness.records.cell import NONE

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8", "int4": "int4"}


def is_comparison(value: Any) -> bool:
    whole = mapping(value)
    return "train_info" in whole and "run_info" in whole


def read_comparison(value: dict[str, Any]) -> LoggedRun:
    """The run. Its tokens are those that each entry of its metrics counts per second, times that entry's seconds."""
    about, train = mapping(value.get("run_info")), mapping(value.get("train_info"))
    settings, adapter = mapping(about.get("train_config")), mapping(about.get("peft_config"))
    system = mapping(mapping(value.get("meta_info")).get("system_info"))
    metrics = train.get("metrics")
    entries = [entry for entry in metrics if isinstance(entry, dict)] if isinstance(metrics, list) else []
    timed = [
        (rate, seconds)
        for entry in entries
        if (rate := positive(entry.get("tokens / sec"))) and (seconds := positive(entry.get("train time")))
    ]
    # Before version 0.17 the names had cuda in them.
    peak = positive(train.get("accelerator_memory_max")) or positive(train.get("cuda_memory_max"))
    batch = count(settings.get("batch_size"))
    steps, seconds = count(settings.get("max_steps")), positive(train.get("train_time"))
    if train.get("status") not in (None, "success"):
        # What did not come to its end made the steps of its last entry.
        steps = next((made for entry in reversed(entries) if (made := count(entry.get("step")))), None)
        seconds = sum(positive(entry.get("train time")) or 0.0 for entry in entries) or None
    return LoggedRun(
        tool="PEFT method_comparison",
        model=text(settings.get("model_id")),
        card=text(system.get("gpu")) or text(system.get("accelerator")),
        precision=_DTYPES.get(str(settings.get("dtype"))),
        method="full" if not adapter else "dora" if adapter.get("use_dora") is True else "lora",
        lora_r=count(adapter.get("r")),
        lora_targets=_names(adapter.get("target_modules")),
        sequences_per_step=batch,
        micro_batch=batch,
        recompute=NONE,  # its step has none
        steps=steps,
        seconds=seconds,
        tokens=sum(rate * seconds for rate, seconds in timed) or None,
        trainable=count(train.get("num_trainable_params")),
        window=count(settings.get("max_seq_length")),
        peak_bytes=peak,
        notes=_notes(train, adapter),
    )


def _names(value: Any) -> str | None:
    """Names of modules as one text; None where it is no list of such."""
    good = isinstance(value, list) and 0 < len(value) <= 64 and all(text(name) for name in value)
    return " ".join(sorted(value)) if good else None


def _notes(train: dict[str, Any], adapter: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if (status := train.get("status")) not in (None, "success"):
        notes.append(f"its status is {text(status) or 'none'}")
    if (kind := text(adapter.get("peft_type"))) and kind != "LORA":
        notes.append(f"{kind} is taken for LoRA")
    return tuple(notes)
