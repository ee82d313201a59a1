"""How many questions are answered at once, and how long that takes: for the decoder and for predictions of it.

Knows no torch: what a cache holds is read from a config.json's values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.analysis.run_description import VIEWS
from harness.arc.lengths import ANSWER_TOKENS, QUESTION_TOKENS
from harness.catalog import activations
from harness.catalog.accelerators import CPU, Accelerator
from harness.predict import roofline
from harness.predict.calibration import Calibration
from harness.predict.roofline import BANDWIDTH, HOST, KINDS, LAUNCH, Trace
from harness.records.measurement import PredictedAnswers

_SHARE = 0.4  # of the free memory, for caches and logits; the rest is for reading prompts
_CPU_ROWS = 64  # more share no launch that is worth it, and leave the processor's own caches
_LOGIT_BYTES = 8  # of one token of the vocabulary: as computed, and once more in fp32
_CONV = 4  # columns that a convolution of a state remembers
_ROOM_TOKENS = 528  # that an answer is given
_LEAST_DRAFTED, _MOST_DRAFTED = 3, 16
_STEP_TOKENS = 256  # of all rows: a T4 does 216 operations of fp16 per byte that it reads, an H100 295
_LEAST_STEPS = 0.2  # per token of an answer, however much is guessed
_QUESTIONS = 400 * VIEWS  # of a whole evaluation: no more can be answered at once


def drafted_tokens(kind: str, rows: int) -> int:
    """Tokens that are guessed per row and step (harness.tune.drafts) where `rows` are answered at once on a device of
    this kind: on a card so many that a step still waits for weights and launches, and not for arithmetic."""
    return _LEAST_DRAFTED if kind == CPU else min(_MOST_DRAFTED, max(_LEAST_DRAFTED, _STEP_TOKENS // rows - 1))


def steps_per_token(drafted: int) -> float:
    """Steps per token of an answer with so many guessed tokens: the mean over ARC tasks with one adapter each and
    eight views, whose last one counts, as `python -m bench.drafts` shows it."""
    return _LEAST_STEPS + (1 - _LEAST_STEPS) / (1 + drafted)


@dataclass(frozen=True)
class CacheSize:
    """Bytes that a row of a batch holds: per token, and once."""

    token_bytes: int
    row_bytes: int

    def rows(self, tokens: int, free_bytes: float, kind: str) -> int:
        """Rows of `tokens` tokens, prompt and answer, that are decoded at once: at least one.

        `kind` is that of the device, `free_bytes` what it has free for all.
        """
        fitting = int(_SHARE * free_bytes / (tokens * self.token_bytes + self.row_bytes))
        return max(1, min(fitting, _CPU_ROWS) if kind == CPU else fitting)


def cache_size(config: Mapping[str, Any], element_bytes: int, vocabulary: int | None = None) -> CacheSize:
    """What models of `config`, a config.json, hold of a row, in elements of `element_bytes`.

    Layers whose kind the config does not tell count as attention, so it may be more than what is held.
    """
    config = activations.text_part(config)
    number = partial(activations.number, config)
    layers, hidden = (max(1, value) for value in activations.layers_and_width(config))
    heads = number("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", default=1)
    kinds = config.get("layer_types")
    kinds = kinds if isinstance(kinds, list) else []
    with_states = sum("attention" not in str(kind) or "linear" in str(kind) for kind in kinds)
    # Latent attention may keep the keys and values that it makes of the latents, of all heads and of unequal widths;
    # whether it does depends on the version of transformers.
    if number("kv_lora_rank") and number("qk_nope_head_dim"):
        width = number("qk_nope_head_dim") + number("qk_rope_head_dim") + number("v_head_dim")
        per_layer = heads * width
    else:
        dim = number("head_dim", default=max(1, hidden // heads))
        per_layer = 2 * dim * _kv_heads(config, number, heads)
    vocabulary = vocabulary or number("vocab_size", default=1)
    states = _state_elements(number, hidden, with_states > 0) * layers
    logit_bytes = vocabulary * _LOGIT_BYTES * (1 + _LEAST_DRAFTED)
    return CacheSize((layers - with_states) * per_layer * element_bytes or 1, 4 * states + logit_bytes)


def _kv_heads(config: Mapping[str, Any], number: Any, heads: int) -> int:
    # Falcon's config says it in two words, one of which overrides the other.
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return number("num_key_value_heads", "num_kv_heads", default=heads)


def _state_elements(number: Any, hidden: int, convolves: bool) -> int:
    """Elements of the largest state that a layer of a config with these numbers may have; 0 without states."""
    inner = max(hidden * number("expand", "mamba_expand", default=2), number("intermediate_size"))
    sizes = (
        inner * number("state_size", "mamba_d_state", "ssm_state_size"),
        number("mamba_n_heads", "mamba_num_heads", "num_heads")
        * number("mamba_d_head", "mamba_head_dim", "head_dim")
        * number("mamba_d_state", "ssm_state_size", "state_size"),
        number("linear_num_value_heads") * number("linear_key_head_dim") * number("linear_value_head_dim"),
    )
    state = max(sizes)
    return state + _CONV * 3 * inner if state else _CONV * hidden * convolves


@dataclass(frozen=True)
class DecodeSpeed:
    """Seconds of decoding: per token of a prompt that is read, per step that all rows share, and per token that a row's
    cache holds. A step of decoding reads all weights and launches every operation once for all rows; each row adds the
    arithmetic of its tokens, guessed ones too, and the reading of its cache. `kind` is the device's."""

    read_s: float
    step_s: float
    cached_s: float
    kind: str = CPU

    @classmethod
    def of(cls, trace: Trace, accelerator: Accelerator, calibration: Calibration, cache: CacheSize) -> "DecodeSpeed":
        """The speed of the traced model: reading is a forward pass, scaled from the trace's tokens to one."""
        forward = replace(trace, ops=tuple(op for op in trace.ops if not op.backward), by_engine=0)
        nominal = roofline.nominal_seconds(forward, accelerator)
        read_s = roofline.seconds(nominal, calibration.slowdown)
        # A token's weights come over the bus, and every operation is launched, for all rows together; on a card, whose
        # launches are HOST, the two overlap as in training.
        weights_s = (trace.memory.weights + trace.memory.constants) / accelerator.bandwidth
        step = dict.fromkeys(KINDS, 0.0) | {BANDWIDTH: weights_s, LAUNCH: nominal[LAUNCH], HOST: nominal[HOST]}
        return cls(
            read_s=read_s / (trace.sequences * trace.tokens),
            step_s=roofline.seconds(step, calibration.slowdown),
            cached_s=cache.token_bytes / accelerator.bandwidth * calibration.slowdown[BANDWIDTH],
            kind=accelerator.kind,
        )

    def seconds(self, question: float, answer: float, rows: float) -> float:
        """Seconds per question of `question` tokens, answered by `answer` tokens together with `rows` - 1 others."""
        alone_s, step_s = self.token_s(question, rows)
        return self.read_s * question + answer * (alone_s + step_s / rows)

    def token_s(self, question: float, rows: float) -> tuple[float, float]:
        """Seconds per token of an answer: of its own row, and of the steps that all `rows` share."""
        drafted = drafted_tokens(self.kind, max(1, int(rows)))
        steps = steps_per_token(drafted)
        return steps * ((1 + drafted) * self.read_s + question * self.cached_s), steps * self.step_s


def predicted(
    trace: Trace, accelerator: Accelerator, calibration: Calibration, cache: CacheSize, context: int, log_sigma: float
) -> PredictedAnswers:
    """What a record carries of the answers of one card to questions of ARC's mean length, cut to `context`."""
    speed, rows = (
        DecodeSpeed.of(trace, accelerator, calibration, cache),
        rows_at_once(trace, accelerator, cache, context),
    )
    answer_token_s, step_s = speed.token_s(min(context, QUESTION_TOKENS), rows)
    return PredictedAnswers(
        question_token_s=speed.read_s,
        answer_token_s=answer_token_s,
        step_s=step_s,
        rows=rows,
        log_sigma=log_sigma,
    )


def answers_s(answering: PredictedAnswers, context: int) -> float:
    """Seconds per task of ARC's mean lengths: in each view the question is read, then answered token by token."""
    return VIEWS * answering.seconds(min(context, QUESTION_TOKENS), ANSWER_TOKENS, _QUESTIONS)


def rows_at_once(trace: Trace, accelerator: Accelerator, cache: CacheSize, context: int) -> int:
    """Questions that the decoder answers at once on `accelerator`: what the weights and the adapter leave is free."""
    free = accelerator.memory_bytes - trace.memory.weights - trace.memory.constants - trace.memory.adapters
    if accelerator.kind != CPU:
        free -= accelerator.context_bytes
    tokens = min(context, QUESTION_TOKENS + _ROOM_TOKENS)
    return min(_QUESTIONS, cache.rows(tokens, max(0, free), accelerator.kind))
