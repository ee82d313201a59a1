"""What trainers print: transformers, TRL, Unsloth's banners, axolotl and LLaMA-Factory with their YAML, and scripts
that report memory.

Of a value that stands several times the last one counts, for a console may hold an earlier try; what a training counted
is read of the last training alone.
"""

import re

from harness.errors import UserError
from harness.logs.logged import (
    ALLOCATED,
    DATA_PARALLEL,
    GIB,
    RESERVED,
    LoggedRun,
    Pace,
    count,
    positive,
    sequences_of,
    timed_steps,
)
from harness.logs.printed import NUMBER as _N
from harness.logs.printed import Training, after, dicts_with, evaluations, last_training, plain, value_of
from harness.logs.printed import key as _key
from harness.records.cell import ALL, NONE

_COUNTED = "num_input_tokens_seen"  # what transformers counts goes on where a run is resumed, the others' begin again
_TOKENS = (_COUNTED, "num_tokens", "tokens/total")
_PLANNED = (r"Total steps\s*=\s*" + _N, r"Total optimization steps\s*=\s*" + _N, _key("max_steps"))
_RESUMED = r"(?:Continuing|Resuming) training from (?:checkpoint with epoch [0-9]+ and )?global step ([0-9][0-9,]*)"
_EXAMPLES = (r"Running training \*[^\n]{0,20}\n[^\n]{0,200}Num examples\s*=\s*" + _N, r"Num examples = " + _N + r" \|")
_BATCH = (r"Total batch size(?: \([^)\n]{0,40}\))?\s*=\s*" + _N, r"Total train batch size[^=\n]{0,80}=\s*" + _N)
_MICRO = (r"[Bb]atch size per device\s*=\s*" + _N, _key("per_device_train_batch_size"), _key("micro_batch_size"))
_ADJUSTED = r"Training with DataParallel so batch size has been adjusted to: " + _N
_GATHERED = "torch/nn/parallel/_functions.py"  # where torch warns that losses of several cards are gathered
_TRAINABLE = (r"[Tt]rainable (?:parameters|params)\s*[=:]\s*" + _N,)
# GB of these is 2**30 bytes: each divides by 1024 three times.
_RESERVED = (
    r"Peak reserved memory\s*=\s*" + _N,
    r"memory/device_reserved \(GiB\)['\"]?:\s*['\"]?" + _N,
    rf"\+{_N}GB reserved",
)
_ALLOCATED = (r"memory/max_allocated \(GiB\)['\"]?:\s*['\"]?" + _N,)
_SMI = r"\|(?<![^\n]\|)\s+(\d+)\s+(?:NVIDIA|Tesla|Quadro|GeForce)[\w -]{2,50}?\s{2,}"  # a row of nvidia-smi
_CARD = (
    r"GPU\s*[=:]\s*([^.\n|]{2,60})\. (?:Num GPUs|Max memory)",
    r"\|[ \t]{2,20}([^.\n|=:]{2,60})\. (?:Num GPUs|Max memory)",
    r"\|\s+\d+\s+((?:NVIDIA|Tesla|Quadro|GeForce)[\w -]{2,50}?)\s{2,}",  # nvidia-smi
)
_MODEL = (
    r"""model_name(?<!\wmodel_name)(?:_or_path)?\s*=\s*['"]([^'"\n]{2,200})['"]""",
    r"""from_pretrained\(\s*['"]([^'"\n]{2,200})['"]""",
    r"""^[ \t]*['"]?base_model['"]?\s*:\s*['"]?([\w./~-]{2,200})""",
)


def read_console(raw: str, settings: str = "", evaluated: bool = False) -> LoggedRun | None:
    """The run that the output `raw` tells of, None where it tells of none. `settings` is code that made it, `evaluated`
    says that it has evaluations that the output does not time."""
    text = plain(raw)
    both, training = f"{settings}\n{text}", last_training(text)
    alone = training.trainings < 2  # else what an earlier training tells is none of this one's
    planned = _count(training.text, *_PLANNED) or (_count(settings, *_PLANNED) if alone else None)
    made = _count(training.text, _key("global_step"))
    if not training.seconds and not made and not planned:
        return None
    _must_be_a_process_per_card(training.text)
    micro, cards = _count(both, *_MICRO), _count(text, r"Data Parallel GPUs\s*=\s*" + _N)
    accumulation = _count(both, r"(?i:gradient[ _]accumulation[ _]steps)['\"]?\s*[:=]\s*['\"]?" + _N)
    rates = [_last(training.text, _key(f"train_{what}_per_second")) for what in ("samples", "steps")]
    epochs, steps = _epochs(training.text, "train_runtime"), made or planned
    batch = _count(text, *_BATCH) or sequences_of(rates[0], rates[1], steps / epochs if steps and epochs else None)
    # A step's sequences that one card's micro-batches do not make are shared by several.
    if not cards and batch and micro and accumulation and batch % (micro * accumulation) == 0:
        cards = batch // (micro * accumulation)
    notes = [f"the last of {training.trainings} trainings in it"] if not alone else []
    if not batch and micro:
        batch = micro * (accumulation or 1) * (cards or 1)
        if not accumulation:
            notes.append(f"a step is taken for one micro-batch, of {batch} sequences, for it tells no accumulation")
    peak, peak_of = _largest(training.text, *_RESERVED), RESERVED
    if not peak:
        peak, peak_of = _largest(training.text, *_ALLOCATED), ALLOCATED
    pace = _pace(training, made, planned, batch, rates[1], evaluated)
    precision, by_flag = _precision(both)
    if by_flag and _tool(both) != "axolotl":
        notes.append(f"{precision} is what it computes in; its weights are taken to be {precision} too (--precision)")
    return LoggedRun(
        tool=_tool(both),
        model=_last(both, *_MODEL),
        card=_last(text, *_CARD),
        cards=cards,
        cards_shown=len(set(re.findall(_SMI, text, re.MULTILINE))) or None,
        precision=precision,
        method=_method(both),
        lora_r=_count(both, _key("lora_r"), _key("lora_rank"), after("r", r"\s*=\s*([0-9]+)\s*[,)]")),
        sequences_per_step=batch,
        micro_batch=micro,
        recompute=_recompute(both),
        steps=pace.steps,
        seconds=pace.seconds,
        tokens=pace.part(_tokens(training.text, resumed=pace.share < 1)),
        flos=pace.part(_flos(training.text)),
        trainable=_count(text, *_TRAINABLE),
        window=_count(both, _key("max_seq_length"), _key("sequence_len"), _key("cutoff_len"), _key("max_length")),
        packed=any(_is_set(both, name) for name in ("packing", "sample_packing")),
        peak_bytes=peak * GIB if peak else None,
        peak_of=peak_of,
        notes=(*notes, *pace.notes),
    )


def _must_be_a_process_per_card(text: str) -> None:
    """Raises UserError where a banner, or a warning of torch's, tells that one process shared its micro-batches."""
    adjusted, own = _count(text, _ADJUSTED), _count(text, _MICRO[0])
    shared = adjusted // own if adjusted and own and adjusted % own == 0 else 1
    if shared > 1 or _GATHERED in text.replace("\\", "/"):
        raise UserError(DATA_PARALLEL.format(shared if shared > 1 else "several"))


def _pace(
    training: Training, made: int | None, planned: int | None, batch: int | None, rate: str | None, evaluated: bool
) -> Pace:
    """Steps and seconds of the last training alone: without what was made before it was resumed, and without its
    evaluations."""
    steps, seconds = made or planned, training.seconds
    began = _count(training.text, _RESUMED)
    if steps and seconds and not began and not made:
        # It may have ended before its plan. Newer rates are of the steps that were made, and epochs always are.
        epoch, examples = _epochs(training.text, "train_runtime"), _count(training.text, *_EXAMPLES)
        by_epochs = epoch * examples / batch if epoch and examples and batch else steps
        if timed_steps(steps, seconds, rate) != steps or by_epochs < 0.95 * steps - 1:
            steps = None
    times = evaluations(training.during)
    return Pace.of(steps, seconds, sum(times), began, rate, evaluated and not times)


def _epochs(text: str, beside: str = "epoch") -> float | None:
    """How many were made, by the last dict that tells it, and has a number of `beside` in it."""
    return next((epoch for entry in dicts_with(text, beside) if (epoch := value_of(entry, "epoch"))), None)


def _tokens(text: str, resumed: bool) -> float | None:
    """Tokens of the whole run: the last count, which may be from before the end."""
    last = _epochs(text)
    for name in _TOKENS[: 1 if resumed else None]:
        for entry in dicts_with(text, name):
            if tokens := value_of(entry, name):
                epoch = value_of(entry, "epoch")
                return tokens * (last / epoch if last and epoch else 1)
        if tokens := positive(_last(text, _key(name))):
            return tokens
    return None


def _last(text: str, *patterns: str) -> str | None:
    """The last match of the first pattern that has one."""
    for pattern in patterns:
        if found := re.findall(pattern, text, re.MULTILINE):
            return str(found[-1]).strip()
    return None


def _count(text: str, *patterns: str) -> int | None:
    return count(_last(text, *patterns))


def _largest(text: str, *patterns: str) -> float | None:
    found = [n for pattern in patterns for value in re.findall(pattern, text) if (n := positive(value))]
    return max(found, default=None)


def _flos(text: str) -> float | None:
    """total_flos: as a number, or in log_metrics' units of 2**30."""
    if short := _last(text, rf"total_flos\s*=\s*{_N}GF"):
        units = positive(short)
        return units * GIB if units else None
    return positive(_last(text, _key("total_flos")))


def _tool(text: str) -> str:
    for mark, tool in (("nsloth", "Unsloth"), ("axolotl", "axolotl"), ("SFTTrainer", "TRL")):
        if mark in text:
            return tool
    return "transformers' output"


def _precision(text: str) -> tuple[str | None, bool]:
    """The precision, and whether only a flag of the trainer tells it, which is about products."""
    if _is_set(text, "load_in_4bit") or re.search(r"bnb-4bit['\"]?[\s,)]", text):
        return "int4", False
    if _is_set(text, "load_in_8bit"):
        return "int8", False
    if (bits := _count(text, _key("quantization_bit"))) in (4, 8):
        return f"int{bits}", False
    if _is_set(text, "fp16"):
        return "fp16", True
    if re.search(r"dtype\s*=\s*(?:torch\.|['\"])bfloat16", text):
        return "bf16", False
    return ("bf16", True) if _is_set(text, "bf16") else (None, False)


def _is_set(text: str, name: str) -> bool:
    return bool(re.search(after(name, r"""['"]?\s*[:=]\s*[Tt]rue"""), text))


def _recompute(text: str) -> str | None:
    """Whether the layers' activations are made again in the backward."""
    word = _last(text, r"gradient_checkpointing['\"]?\s*[:=]\s*['\"]?([Tt]rue|[Ff]alse|unsloth)")
    return None if word is None else NONE if word.lower() == "false" else ALL


def _method(text: str) -> str | None:
    if re.search(r"full_finetuning['\"]?\s*[:=]\s*[Tt]rue|finetuning_type['\"]?\s*[:=]\s*['\"]?full", text):
        return "full"
    if re.search(r"use_dora['\"]?\s*[:=]\s*[Tt]rue", text):
        return "dora"
    named = "get_peft_model" in text or "LoraConfig" in text
    patterns = (r"lora_r\b", r"finetuning_type['\"]?\s*[:=]\s*['\"]?lora", r"adapter['\"]?\s*:\s*['\"]?q?lora")
    return "lora" if named or any(re.search(pattern, text) for pattern in patterns) else None
