"""What trainers print: transformers, TRL, Unsloth's banners, axolotl with its YAML, and scripts that report memory.

Of a value that stands several times the last one counts, for a console may hold an earlier try.
"""

import re

from harness.logs.logged import ALLOCATED, GIB, RESERVED, LoggedRun, count, positive, sequences_of

_N = r"([0-9][0-9,]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"  # a number
_MOST = 1 << 26  # characters that are read


def _key(name: str) -> str:
    """The value of `name` as a dict's text, a table of metrics or YAML has it: 'x': '1', x = 1, x: 1."""
    return rf"""(?<![\w/]){name}['"]?\s*[:=]\s*['"]?{_N}(?![\w:])"""


_SECONDS = (
    _key("train_runtime"),
    rf"^[ \t]*{_N} seconds used for training",
    r"(?<!\w)train_runtime\s*=\s*([0-9:.]+)\s*$",
)
_TOKENS = (_key("num_input_tokens_seen"), _key("num_tokens"), _key("tokens/total"))
_STEPS = (_key("global_step"), r"Total steps\s*=\s*" + _N, r"Total optimization steps\s*=\s*" + _N, _key("max_steps"))
_BATCH = (r"Total batch size(?: \([^)\n]{0,40}\))?\s*=\s*" + _N, r"Total train batch size[^=\n]{0,80}=\s*" + _N)
_MICRO = (r"[Bb]atch size per device\s*=\s*" + _N, _key("per_device_train_batch_size"), _key("micro_batch_size"))
_TRAINABLE = (r"[Tt]rainable (?:parameters|params)\s*[=:]\s*" + _N,)
# GB of these is 2**30 bytes: each divides by 1024 three times.
_RESERVED = (
    r"Peak reserved memory\s*=\s*" + _N,
    r"memory/device_reserved \(GiB\)['\"]?:\s*['\"]?" + _N,
    rf"\+{_N}GB reserved",
)
_ALLOCATED = (r"memory/max_allocated \(GiB\)['\"]?:\s*['\"]?" + _N,)
_CARD = (
    r"GPU\s*[=:]\s*([^.\n|]{2,60})\. (?:Num GPUs|Max memory)",
    r"\|[ \t]{2,20}([^.\n|=:]{2,60})\. (?:Num GPUs|Max memory)",
    r"\|\s+\d+\s+((?:NVIDIA|Tesla|Quadro|GeForce)[\w -]{2,50}?)\s{2,}",  # nvidia-smi
)
_MODEL = (
    r"""(?<!\w)model_name(?:_or_path)?\s*=\s*['"]([^'"\n]{2,200})['"]""",
    r"""from_pretrained\(\s*['"]([^'"\n]{2,200})['"]""",
    r"""^[ \t]*['"]?base_model['"]?\s*:\s*['"]?([\w./~-]{2,200})""",
)


def read_console(text: str, settings: str = "") -> LoggedRun | None:
    """The run that the output `text` tells of, None where it tells of none; `settings` is code that made it."""
    text, both = text[-_MOST:], f"{settings}\n{text[-_MOST:]}"
    seconds = _seconds(text)
    steps = _count(text, *_STEPS) or _count(settings, *_STEPS)
    if not seconds and not steps:
        return None
    micro, cards = _count(both, *_MICRO), _count(text, r"Data Parallel GPUs\s*=\s*" + _N)
    accumulation = _count(both, r"[Gg]radient[ _]accumulation[ _]steps\s*[:=]\s*" + _N)
    batch = _count(text, *_BATCH) or sequences_of(
        _last(text, _key("train_samples_per_second")), _last(text, _key("train_steps_per_second"))
    )
    if not batch and micro:
        batch = micro * (accumulation or 1) * (cards or 1)
    peak, peak_of = _largest(text, *_RESERVED), RESERVED
    if not peak:
        peak, peak_of = _largest(text, *_ALLOCATED), ALLOCATED
    runs = len(re.findall(_key("train_runtime"), text))
    return LoggedRun(
        tool=_tool(both),
        model=_last(both, *_MODEL),
        card=_last(text, *_CARD),
        cards=cards,
        precision=_precision(both),
        method=_method(both),
        lora_r=_count(both, _key("lora_r"), r"""(?<![\w])r\s*=\s*([0-9]+)\s*[,)]"""),
        sequences_per_step=batch,
        micro_batch=micro,
        steps=steps,
        seconds=seconds,
        tokens=positive(_last(text, *_TOKENS)),
        flos=_flos(text),
        trainable=_count(text, *_TRAINABLE),
        window=_count(both, _key("max_seq_length"), _key("sequence_len"), _key("max_length")),
        packed=bool(re.search(r"(?<!\w)(?:sample_)?packing['\"]?\s*[:=]\s*[Tt]rue", both)),
        peak_bytes=peak * GIB if peak else None,
        peak_of=peak_of,
        # One print per run, and one more where the metrics are shown again.
        notes=(f"the last of {runs} trainings in it",) if runs > 2 else (),
    )


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


def _seconds(text: str) -> float | None:
    value = _last(text, *_SECONDS)
    if not value or ":" not in value:
        return positive(value)
    # As log_metrics writes it: 1:02:03.45.
    total = 0.0
    for part in value.split(":"):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", part):
            return None
        total = 60 * total + float(part)
    return positive(total)


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


def _precision(text: str) -> str | None:
    def is_set(*names: str) -> bool:
        return any(re.search(rf"(?<![\w]){name}['\"]?\s*[:=]\s*[Tt]rue", text) for name in names)

    if is_set("load_in_4bit") or re.search(r"bnb-4bit['\"]?[\s,)]", text):
        return "int4"
    if is_set("load_in_8bit"):
        return "int8"
    if is_set("fp16"):
        return "fp16"
    if is_set("bf16") or re.search(r"dtype\s*=\s*torch\.bfloat16", text):
        return "bf16"
    return None


def _method(text: str) -> str | None:
    if re.search(r"full_finetuning['\"]?\s*[:=]\s*[Tt]rue", text):
        return "full"
    if re.search(r"use_dora['\"]?\s*[:=]\s*[Tt]rue|peft_use_dora['\"]?\s*:\s*true", text):
        return "dora"
    return "lora" if re.search(r"get_peft_model|LoraConfig|lora_r\b|adapter['\"]?\s*:\s*['\"]?q?lora", text) else None
