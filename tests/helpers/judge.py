"""Whether the harness trains a model right: its own path against a plain loop of transformers and PEFT.

Nothing of harness.train.check is used to judge. Both sides have the same base weights and adapter values; the plain
side (helpers.plain) is built by transformers alone and runs every sequence by itself.
"""

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from helpers import plain
from helpers.plain import PlainFails, Sequences

from harness.catalog.precisions import find
from harness.errors import Unsupported, first_line
from harness.predict import tracer
from harness.predict.trace_pool import TraceKey
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import to_stored
from harness.train import model as models
from harness.train.batches import Batch
from harness.train.compat import quiet
from harness.train.step import TrainingStep

RIGHT, REFUSED, NOT_CAUSAL, PLAIN_FAILS, WRONG, CRASH = (
    "right",
    "refused",
    "not causal",
    "plain fails",
    "WRONG",
    "crash",
)
LENGTHS = ((61, 7), (37, 12), (50, 1))  # (tokens, answer tokens): longer than every window and chunk of the zoo
_AT_ONCE = 128  # tokens of a pack
_LOSS, _GRADIENT, _UPDATED = 1e-4, 1e-3, 1e-3
_UPDATES = 3
# In bf16 both sides round: ours may differ from the plain one by some times the most that one differs from fp32.
_BF16_LOSS, _BF16_TIMES = 0.02, 3
CPU = torch.device("cpu")
# Kernels are named, so that no timing decides what is judged: ours, then torch's in the second look.
_OURS, _TORCHS = "attention=blocks pointwise=plain", "attention=sdpa pointwise=plain"
RECIPE = Recipe(
    lora_r=4,
    lora_alpha=8,
    lora_targets="all-linear",
    sequences_per_step=len(LENGTHS),
    learning_rate=1e-3,
    kernels=_OURS,
)


@dataclass(frozen=True)
class Verdict:
    """`detail` says what is refused, wrong or failing; `plain` what is left to transformers of one that is right."""

    verdict: str
    detail: str = ""
    plain: str = ""
    packs: bool = False
    traced: str = ""  # empty if the step can be traced, else why not
    attention: str = ""  # empty if the default targets, attention's projections, are trained right, else the refusal
    bf16: str = ""  # empty if bf16 is right, else why plain transformers cannot


class _Stop(Exception):
    """Carries the verdict that is final."""

    def __init__(self, verdict: str, detail: str, more: str = ""):
        self.verdict = Verdict(verdict, detail, more)


def judge(config: transformers.PretrainedConfig, wide: bool = False) -> Verdict:
    """The verdict on `config`, whose values go the way of a config.json: loss and gradients in fp32, LoRA on all linear
    layers. If `wide`, also three updates, the default targets, and bf16."""
    try:
        return _judged(config, wide)
    except _Stop as stop:
        return stop.verdict


def _judged(config: transformers.PretrainedConfig, wide: bool) -> Verdict:
    spec, sequences = spec_of(config), _sequences(config)
    loaded, theirs = _pair(config, spec, sequences)
    ours = loaded.model
    try:
        expected = [plain.step(theirs, [sequence], len(sequences)) for sequence in sequences]
        whole = plain.step(theirs, sequences, len(sequences))
    except PlainFails as problem:
        return Verdict(WRONG, f"with the values of ours: {problem}")
    if abs(sum(loss for loss, _ in expected) / len(sequences) - whole[0]) > 1e-5:
        return Verdict(PLAIN_FAILS, "random in training: its step differs from itself")
    # Loss and gradients of every sequence, of the step with one sequence per pack, and packed.
    step = TrainingStep(ours, RECIPE, "fp32", CPU)
    step.update = lambda: None  # type: ignore[method-assign]  # the gradients stay
    for sequence, answer in zip(sequences, expected, strict=True):
        _must_equal("alone", _ran(ours, lambda sequence=sequence: step.micro_step(_batch(sequence))), answer)
    for tokens_at_once, name in ((1, "one per pack"), (_AT_ONCE, "packed")):
        _must_equal(name, _ran(ours, lambda tokens=tokens_at_once: step.run(sequences, tokens)), whole)
    left = loaded.kernels.partition("transformers=")[2]
    verdict = Verdict(RIGHT, "", left, getattr(ours, "packs_sequences", True), _traced(spec, RECIPE))
    if not wide:
        return verdict
    _judge_updates(ours, theirs, sequences)
    del loaded, ours, theirs
    return replace(verdict, attention=_attention(config, spec, sequences), bf16=_bf16(config, spec, sequences))


def _pair(config: transformers.PretrainedConfig, spec: ModelSpec, sequences: Sequences) -> tuple[Any, Any]:
    """Ours, loaded, and the plain model, of the same values."""
    theirs, causal, failure = None, True, ""
    for every in (True, False):
        torch.manual_seed(0)
        try:
            theirs = plain.all_linear(config, RECIPE, every)
            plain.step(theirs, sequences, len(sequences))
            causal = plain.is_causal(theirs, sequences[0][0])
            plain.randomize(theirs)
            plain.step(theirs, sequences, len(sequences))
            break
        except PlainFails as problem:
            theirs, failure = None, failure or str(problem)
    # Ours: refused, or a model of the same layout.
    try:
        loaded = _load(spec, RECIPE)
    except Unsupported as problem:
        if theirs is None:
            raise _Stop(PLAIN_FAILS, failure, f"refused: {problem}") from None
        raise _Stop(NOT_CAUSAL if not causal else REFUSED, str(problem)) from None
    except Exception as problem:
        name = f"load: {type(problem).__name__}: {first_line(problem)}"
        raise _Stop(CRASH, name if theirs else f"{name} (plain: {failure})") from None
    if theirs is None:
        raise _Stop(PLAIN_FAILS, failure, "ours loads")
    if not causal:
        raise _Stop(WRONG, "not causal, and not refused")
    plain.randomize(loaded.model)
    if problem := plain.copy_values(loaded.model, theirs):
        raise _Stop(WRONG, problem)
    return loaded, theirs


def _judge_updates(ours: Any, theirs: Any, sequences: Sequences) -> None:
    """Three updates by AdamW have the losses of the plain loop's."""
    try:
        expected = plain.updated_losses(theirs, sequences, RECIPE, _UPDATES)
    except PlainFails as problem:
        raise _Stop(WRONG, f"plain updates fail: {problem}") from None
    ours.zero_grad(set_to_none=True)
    step = TrainingStep(ours, RECIPE, "fp32", CPU)
    for number, loss in enumerate(expected):
        ran, _ = _ran(ours, lambda: step.run(sequences, _AT_ONCE))
        if not abs(ran - loss) <= _UPDATED:
            raise _Stop(WRONG, f"after {number} updates, the loss is {ran:.5f}, not {loss:.5f}")


def _attention(config: transformers.PretrainedConfig, spec: ModelSpec, sequences: Sequences) -> str:
    """A packed step with the default targets and torch's attention; what is said if they are refused."""
    recipe = replace(RECIPE, lora_targets="attention", kernels=_TORCHS)
    try:
        ours = _load(spec, recipe).model
        plain.randomize(ours)
        whole = plain.step(plain.twin(config, recipe, ours, torch.float32), sequences, len(sequences))
    except Unsupported as problem:
        return str(problem)
    except Exception as problem:
        raise _Stop(CRASH, f"attention's targets: {type(problem).__name__}: {first_line(problem)}") from None
    step = TrainingStep(ours, recipe, "fp32", CPU)
    step.update = lambda: None  # type: ignore[method-assign]
    _must_equal("attention's targets, packed", _ran(ours, lambda: step.run(sequences, _AT_ONCE)), whole)
    return ""


def _bf16(config: transformers.PretrainedConfig, spec: ModelSpec, sequences: Sequences) -> str:
    """A packed step in bf16; why plain transformers cannot, if so."""
    try:
        ours = _load(spec, RECIPE, "bf16").model
    except Exception as problem:
        raise _Stop(CRASH, f"bf16: {type(problem).__name__}: {first_line(problem)}") from None
    plain.randomize(ours)
    try:
        rounded, exact = (
            [plain.step(twin, [sequence], len(sequences))[0] for sequence in sequences]
            for twin in (plain.twin(config, RECIPE, ours, dtype) for dtype in (torch.bfloat16, torch.float32))
        )
    except PlainFails as problem:
        return str(problem)
    step = TrainingStep(ours, RECIPE, "bf16", CPU)
    loss, _ = _ran(ours, lambda: step.run(sequences, _AT_ONCE))
    # Where tokens are chosen (experts, indexed attention) rounding chooses others: single losses differ by much.
    rounding = max(abs(a - b) for a, b in zip(rounded, exact, strict=True))
    mean, exact_mean = sum(rounded) / len(rounded), sum(exact) / len(exact)
    if not abs(loss - mean) <= _BF16_LOSS + _BF16_TIMES * rounding:
        raise _Stop(WRONG, f"in bf16 the loss is {loss:.4f}, the plain one's {mean:.4f}, in fp32 {exact_mean:.4f}")
    return ""


def _load(spec: ModelSpec, recipe: Recipe, precision: str = "fp32") -> models.Loaded:
    return models.load(spec, find(precision), precision, recipe, "random", CPU)


def spec_of(config: transformers.PretrainedConfig) -> ModelSpec:
    raw = json.loads(config.to_json_string())
    return ModelSpec(raw["model_type"], raw, 512)


def _sequences(config: transformers.PretrainedConfig) -> Sequences:
    generator = torch.Generator().manual_seed(5)
    vocab = config.get_text_config(decoder=True).vocab_size
    return [(torch.randint(3, vocab, (n,), generator=generator).tolist(), m) for n, m in LENGTHS]


def _batch(sequence: tuple[Any, int]) -> Batch:
    ids, answer_tokens = sequence
    return Batch(torch.tensor([ids]), answer_tokens)


def _ran(model: Any, run: Callable[[], torch.Tensor]) -> tuple[float, dict]:
    """The loss that `run` gives, and the gradients that it leaves."""
    model.zero_grad(set_to_none=True)
    try:
        with quiet():
            loss = float(run())
    except Exception as problem:
        raise _Stop(CRASH, f"step: {type(problem).__name__}: {first_line(problem)}") from None
    return loss, plain.gradients(model)


def _must_equal(name: str, ours: tuple[float, dict], theirs: tuple[float, dict]) -> None:
    if problem := _differs(ours, theirs):
        raise _Stop(WRONG, f"{name}, {problem}")


def _differs(ours: tuple[float, dict], theirs: tuple[float, dict]) -> str:
    """What differs by more than the tolerances, in words; empty if nothing does."""
    if not abs(ours[0] - theirs[0]) <= _LOSS:
        return f"the loss is {ours[0]:.5f}, not {theirs[0]:.5f}"
    largest = max(float(g.abs().max()) for g in theirs[1].values())
    name, worst = max(
        ((name, float((g - ours[1][name]).abs().max())) for name, g in theirs[1].items()), key=lambda pair: pair[1]
    )
    if not worst <= _GRADIENT * largest:
        return f"the gradient of {name} is off by {worst / largest:.1e} of the largest"
    return ""


def _traced(spec: ModelSpec, recipe: Recipe) -> str:
    key = TraceKey(spec, find("fp32"), "fp32", recipe, 64, "cpu")
    try:
        answer = tracer.trace_job(to_stored(key), lambda *_: None)
    except Exception as problem:
        return f"crash: {type(problem).__name__}: {first_line(problem)}"
    gc.collect()
    return answer.get("unsupported", "")
